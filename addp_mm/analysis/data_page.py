# Copyright (c) addp_mm contributors. Apache-2.0.
"""The HTML report of tools/check.py."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from tqdm import tqdm

from addp_mm.analysis.annotated_images import Colour, draw
from addp_mm.analysis.data_report import DataReport
from addp_mm.analysis.distribution import Distribution
from addp_mm.analysis.duplicates import Duplicates
from addp_mm.checkpoints.atomic_write import write_text
from addp_mm.report.data_figures import class_bars, histogram, size_scatter
from addp_mm.report.figures import Picture, photo_picture
from addp_mm.report.machine import versions
from addp_mm.report.page import render

_NUM_GROUPS = 12  # groups of files with the same content
_FOLDED = 15  # rows of a table that is folded
_NONE = '–'


@dataclass(frozen=True)
class Numbers:
    """A table of numbers. The first cell of a row is its name."""

    header: Sequence[str]
    rows: Sequence[Sequence[str]]
    numeric: bool = True


@dataclass(frozen=True)
class Part:
    """A section: charts and a table.

    Attributes:
        heading: Title of the section.
        text: Text below it.
        charts: Pictures side by side.
        table: The table. Defaults to None.
        folded: Text to click on for the table. Defaults to '': the table is always shown.
        wide: Whether a single chart has the width of the page. Defaults to False.
    """

    heading: str
    text: str
    charts: Sequence[Picture] = ()
    table: Numbers | None = None
    folded: str = ''
    wide: bool = False


@dataclass(frozen=True)
class Shown:
    """A drawn image of the sheet."""

    title: str
    picture: Picture
    legend: Sequence[tuple[str, Colour]]


def write_data_page(
    path: Path,
    config: str,
    checks: Mapping[str, Sequence[str]],
    warnings: Sequence[str],
    reports: Sequence[DataReport],
    duplicates: Duplicates | None,
    command: str,
) -> None:
    """Write the page.

    Args:
        path: The HTML file.
        config: The config, as it was given.
        checks: Messages of each check by its name; none if it passed.
        warnings: Texts, one line each.
        reports: Numbers of the datasets.
        duplicates: Files with the same content; None if they were not searched.
        command: The command that created the page.
    """
    text = render(
        'data_check.html.j2',
        title='Data check',
        config=config,
        state='failed' if any(checks.values()) else 'unusual' if warnings else 'passed',
        verdict=verdict(checks, warnings),
        failed=[(name, messages) for name, messages in checks.items() if messages],
        passed=[name for name, messages in checks.items() if not messages],
        warnings=warnings,
        overview=Numbers(['', *(report.split for report in reports)], overview(reports)) if reports else None,
        notes=[f'{report.split}: {note}' for report in reports for note in report.notes],
        sections=list(_sections(reports, duplicates)),
        sheets=[(report.split, sheet) for report in reports if (sheet := _sheet(report))],
        command=command,
        versions=', '.join(f'{name} {version}' for name, version in versions().items()),
    )
    write_text(path, text)


def verdict(checks: Mapping[str, Sequence[str]], warnings: Sequence[str]) -> str:
    """The result in one line."""
    failed = sum(map(bool, checks.values()))
    looks = f'{len(warnings)} thing{"s are" if len(warnings) > 1 else " is"} worth a look'
    if failed:
        return f'{failed} of {len(checks)} checks failed' + (f'; {looks}' if warnings else '')
    return f'All {len(checks)} checks passed' + (f'; {looks}' if warnings else '')


def overview(reports: Sequence[DataReport]) -> list[list[str]]:
    """Rows of numbers with a column for each dataset. Rows without a number are left out."""
    rows = [
        [name, *(_NONE if (text := cell(one)) is None else text for one in reports)] for name, cell in _ROWS.items()
    ]
    return [row for row in rows if any(cell != _NONE for cell in row[1:])]


def _number(value: int | None) -> str | None:
    return None if value is None else f'{value:,}'


def _summary(value: Distribution | None, digits: int = 0) -> str | None:
    return value.text(digits) if value else None


def _boxes(name: str) -> Callable[[DataReport], str | None]:
    return lambda report: _number(getattr(report.boxes, name)) if report.boxes else None


def _box_summary(name: str, digits: int = 0) -> Callable[[DataReport], str | None]:
    return lambda report: _summary(getattr(report.boxes, name), digits) if report.boxes else None


def _tokens(name: str) -> Callable[[DataReport], str | None]:
    return lambda report: f'{getattr(report.tokens, name):,.6g}' if report.tokens else None


_ROWS: dict[str, Callable[[DataReport], str | None]] = {
    'dataset': lambda report: report.kind,
    'images': lambda report: _number(report.images),
    'different image sizes': lambda report: _number(report.sizes.distinct) if report.sizes else None,
    'width: min / median / max': lambda report: _summary(report.sizes.width) if report.sizes else None,
    'height: min / median / max': lambda report: _summary(report.sizes.height) if report.sizes else None,
    'classes': lambda report: _number(len(report.classes)) if report.classes else None,
    'objects': _boxes('objects'),
    'objects per image: min / median / max': _box_summary('per_image'),
    'images without objects': _boxes('empty_images'),
    'small objects (area below 32²)': _boxes('small'),
    'medium objects': _boxes('medium'),
    'large objects (from 96²)': _boxes('large'),
    'box width: min / median / max': _box_summary('width', 1),
    'box height: min / median / max': _box_summary('height', 1),
    'width / height: min / median / max': _box_summary('aspect', 2),
    'boxes outside their image': _boxes('outside'),
    'boxes below one pixel': _boxes('degenerate'),
    'crowds and ignored': _boxes('ignored'),
    'annotations of other categories': _boxes('of_no_class'),
    'pixels': lambda report: _number(report.labels.pixels) if report.labels else None,
    'ignored pixels': lambda report: (
        f'{report.labels.ignored / report.labels.pixels:.1%}' if report.labels and report.labels.pixels else None
    ),
    'views of an image': _tokens('views'),
    'tokens of a view': _tokens('tokens'),
    'codes that occur': _tokens('used'),
    'perplexity of the codes': _tokens('perplexity'),
}


def _sections(reports: Sequence[DataReport], duplicates: Duplicates | None) -> Iterator[Part]:
    for classes in dict.fromkeys(tuple(one.classes) for one in reports if one.classes and len(one.by_class)):
        same = [one for one in reports if tuple(one.classes) == classes and len(one.by_class)]
        yield from _class_part(classes, same)
    boxes = {one.split: one.boxes for one in reports if one.boxes and one.boxes.objects}
    if boxes:
        yield Part(
            'Boxes',
            'Shares of the objects of each split, without crowds and ignored ones.',
            [
                _histogram('Objects in an image', {name: one.per_image for name, one in boxes.items()}, 'objects'),
                _histogram(
                    'Size of the boxes',
                    {name: one.root_area for name, one in boxes.items()},
                    '√(width · height), px',
                    True,
                ),
                _histogram(
                    'Shape of the boxes', {name: one.aspect for name, one in boxes.items()}, 'width / height', True
                ),
            ],
        )
    yield from _size_part(reports)
    yield from _value_parts(reports)
    if duplicates:
        yield _duplicate_part(duplicates)


def _histogram(
    title: str, summaries: Mapping[str, Distribution | None], x_label: str, logarithmic: bool = False
) -> Picture:
    return histogram(title, {name: one for name, one in summaries.items() if one}, x_label, logarithmic)


def _class_part(classes: Sequence[str], reports: Sequence[DataReport]) -> Iterator[Part]:
    unit = reports[0].unit
    counts = {report.split: report.by_class for report in reports if sum(report.by_class)}
    if not counts:
        return
    header = ['', *(f'{report.split}: {unit}' for report in reports)]
    images = [report.boxes or report.labels for report in reports]
    header += [f'{report.split}: images' for report, some in zip(reports, images, strict=True) if some]
    rows = [
        [
            name,
            *(f'{report.by_class[index]:,}' for report in reports),
            *(f'{some.images_by_class[index]:,}' for some in images if some),
        ]
        for index, name in enumerate(classes)
    ]
    yield Part(
        'Classes',
        'The most frequent class of the first split comes first.'
        + (' Of more than 60 classes, the 30 most and the 30 least frequent are drawn.' if len(classes) > 60 else ''),
        [class_bars(classes, counts, unit)],
        Numbers(header, rows),
        folded=f'Numbers of all {len(classes)} classes',
        wide=True,
    )


def _size_part(reports: Sequence[DataReport]) -> Iterator[Part]:
    sizes = {one.split: one.sizes.common for one in reports if one.sizes and one.sizes.common}
    if not any(len(some) > 1 for some in sizes.values()):
        return  # the table of all numbers has the size
    common = [
        [f'{width:,} × {height:,}', name, f'{count:,}']
        for name, some in sizes.items()
        for width, height, count in some[:10]
    ]
    yield Part(
        'Image sizes',
        'The larger a circle, the more images have this size.',
        [size_scatter(sizes)],
        Numbers(['width × height, px', 'split', 'images'], common),
        folded='Most common sizes',
    )


def _value_parts(reports: Sequence[DataReport]) -> Iterator[Part]:
    """Values of the label maps as stored."""
    found = {report.split: report.labels for report in reports if report.labels}
    if not found:
        return
    values = sorted({value for labels in found.values() for value in labels.stored})
    meaning = {value: name for labels in found.values() for value, name in labels.meaning.items()}
    rows = [
        [
            f'{value}: {meaning[value]}',
            *(f'{labels.stored.get(value, 0) / max(labels.pixels, 1):.3%}' for labels in found.values()),
        ]
        for value in values
    ]
    yield Part(
        'Values of the label maps',
        'As stored in the files, and what a training takes them for. Shares of all pixels.',
        table=Numbers(['value', *found], rows),
        folded=f'{len(values)} values' if len(values) > _FOLDED else '',
    )


def _duplicate_part(duplicates: Duplicates) -> Part:
    counts = {f'{second}, also in {first}': count for (first, second), count in duplicates.between.items()}
    counts |= {f'repeated within {split}': count for split, count in duplicates.within.items()}
    if not any(counts.values()):
        return Part('Duplicates', f'None of {duplicates.compared:,} image files has the content of another one.')
    numbers = [f'{name}: {count:,}' for name, count in counts.items() if count]
    rows = [[split, name] for group in duplicates.groups[:_NUM_GROUPS] for split, name in [*group[:4], ('', '')]]
    return Part(
        'Duplicates',
        f'Image files with the same content, of {duplicates.compared:,}. {"; ".join(numbers)}. Some of them:',
        table=Numbers(['split', 'file'], rows[:-1], numeric=False),
    )


def _sheet(report: DataReport) -> list[Shown]:
    """Draw the samples; images that cannot be read are left out, since a check names them."""
    shown = []
    for sample in tqdm(report.samples, desc=f'Drawing {report.split}', disable=None, leave=False):
        try:
            drawn = draw(sample)
        except (OSError, ValueError):
            continue
        name = '/'.join(Path(drawn.title).parts[-2:])
        shown.append(Shown(name, photo_picture(drawn.image, f'annotated image {drawn.title}'), drawn.legend))
    return shown
