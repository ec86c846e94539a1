# Copyright (c) addp_mm contributors. Apache-2.0.
"""The page of generation, from the files of a finished study."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import date
from pathlib import Path

from backbones_page import prose, table

from addp_mm.benchmark.step_runner import clock
from addp_mm.benchmark.tables import NONE
from addp_mm.checkpoints.atomic_write import write_text
from addp_mm.checkpoints.file_fingerprint import file_fingerprint
from addp_mm.label_maps.config_classifier import class_names
from addp_mm.report.logs import LogError, read_curve, read_json
from addp_mm.report.machine import machine_class, versions
from generation_report.cells import BATCH_SIZE, SEARCH_SEED, SEED, Cell, Commands, Line, shown
from generation_report.pictures import write_chart, write_class_samples, write_distances, write_schedule_samples
from generation_report.study import Study, weight_files

MASKED = ('0.50', '0.75', '0.95')
_IDLE = 0.3  # load of a machine on which nothing else runs
READING = """\
The distance is that of Gaussians fitted to the features of generated and of real images; less is better. The
features are those of {network}: **this is not an FID**. Compare it only with distances in the same features, to the
same images and with the same number of images. Each cell has {count:,} generated images{few}. The reference of scenes
are the validation scenes: {reference}. Precision is the share of generated images that lie among the real ones, and
recall the share of real images that lie among the generated ones, in the same features ([Metrics](../metrics.md)).

The network has the fingerprint `{fingerprint}`. If it is a shipped one, it changes with the shipped weights, and all
distances with it: numbers of other versions of this page cannot be compared with these.

All cells use the same noise (`--seed {seed}`). Another seed gives slightly other numbers; their spread was not
measured. [Generate images](../generation.md#schedules-and-orders) explains the options."""


def write_page(study: Study, out: Path, predictor_work_dir: Path | None) -> None:
    """Write the page, and its figures into ``images`` beside its folder.

    Args:
        study: A study whose measurements are done.
        out: The page.
        predictor_work_dir: Work dir of the predictor's training, or None.
    """
    # readers have the results and the data in these folders
    typed = replace(study.commands, work_dir=Path('work_dirs/generation'), data_root=Path('data/fashion_scenes'))
    parts = [
        *heading(study, predictor_work_dir),
        *distances(study, typed),
        *details(study, typed),
        *with_classes(study, typed),
        *rates(study, typed),
        *search(study, typed),
        *(predictor(predictor_work_dir) if predictor_work_dir else []),
        *measured_with(study),
    ]
    write_text(out, '\n\n'.join(filter(None, parts)) + '\n')
    write_figures(study, out.parent.parent / 'images', predictor_work_dir)


def write_figures(study: Study, images: Path, predictor_work_dir: Path | None) -> None:
    """Write the figures of the page."""
    write_distances(study, images / 'generation_distances.svg')
    write_schedule_samples(study, images / 'generation_schedules.webp')
    if study.garments:
        write_class_samples(study, class_names(study.garments.config), images / 'generation_classes.webp')
    if predictor_work_dir:
        lines = {f'{float(share):.0%} masked': curve for share, curve in predictor_curves(predictor_work_dir).items()}
        write_chart(images / 'predictor_validation.svg', {'Cross entropy, nats': lines}, 'iteration')


def code(*commands: str) -> str:
    """Commands as a block."""
    return '```bash\n' + '\n'.join(commands) + '\n```'


def heading(study: Study, predictor_work_dir: Path | None) -> list[str]:
    """Title, command, and how to read the numbers."""
    given = [
        f'--num-images {study.commands.num_images}',
        '--earlier EARLIER_CONFIG EARLIER_CHECKPOINT' if study.earlier else '',
        f'--extractors {" ".join(study.extractors)}' if len(study.extractors) > 1 else '',
        '--predictor-work-dir WORK_DIR_OF_ITS_TRAINING' if predictor_work_dir else '',
    ]
    own = ' '.join(filter(None, ['python .dev/generation_page.py', *given]))
    found = read_json(study.commands.scores(study.detail()[0], study.extractors[0]))
    few = ' (a usual FID has 10,000 to 50,000)' if study.commands.num_images < 10_000 else ''
    reading = READING.format(
        network=f'`{study.extractors[0]}`',
        fingerprint=found['extractor']['fingerprint'][:12],
        reference=found['reference']['convention'],
        count=study.commands.num_images,
        few=few,
        seed=SEED,
    )
    return [
        '# Generation on FashionScenes',
        code(
            "pip install 'addp_mm[search,fidelity]'",
            'python tools/dataset_converters/fashion_scenes.py data/fashion_scenes',
            own,
        ),
        prose(
            'generates with the shipped nano weights, compares the images with real ones and writes this page (last '
            f'written on {date.today().isoformat()}). Finished commands are not repeated. Each section has the '
            'commands of one cell; the other cells differ in what the table says.'
        ),
        prose(reading),
    ]


def distance_table(study: Study, lines: Sequence[Line], name: str) -> str:
    """The distance of lines by steps."""
    steps = study.extent.steps
    return table(
        [name, 'options of `addp generate`', *(f'{count} steps' for count in steps)],
        [[line.title, line.text, *(f'{study.fid(Cell(line, count)):.2f}' for count in steps)] for line in lines],
    )


def cell_commands(study: Study, typed: Commands, cell: Cell) -> str:
    """The commands of a cell, as a reader types them."""
    return code(shown(typed.generate(cell)), shown(typed.evaluate(cell, study.extractors[0])))


def distances(study: Study, typed: Commands) -> list[str]:
    """Distances by steps and schedule."""
    lines = study.schedules()
    searched = f' `searched` is the best schedule of a [search](#search) at {study.detail_steps} steps.'
    return [
        '## Distance by steps and schedule',
        '![Fréchet distance against steps, a line for each schedule](../images/generation_distances.svg)',
        f'Fréchet distance `{study.extractors[0]}`, less is better:',
        distance_table(study, lines, 'schedule'),
        prose(
            '`published` is the schedule of the published code. Its temperature of 6 is for 256 tokens; these weights '
            f'have 64. `Halton` was the best one for the weights before these.{searched if study.extent.trials else ""}'
        ),
        cell_commands(study, typed, Cell(lines[-1], study.detail_steps)),
        '![Generated scenes, a row for each schedule](../images/generation_schedules.webp)',
        prose(
            f'*The first images of each schedule with {study.detail_steps} steps, not chosen. The noise of a column is '
            'the same.*'
        ),
    ]


def details(study: Study, typed: Commands) -> list[str]:
    """All scores at one number of steps."""
    cells = study.detail()
    more = study.extractors[1:]
    header = [
        f'{study.detail_steps} steps',
        'distance',
        'precision',
        'recall',
        *(f'distance `{name}`' for name in more),
    ]
    rows = {
        cell.line.title: [
            f'{study.fid(cell):.2f}',
            *(f'{study.score(cell, name):.2f}' for name in ('precision', 'recall')),
            *(f'{study.fid(cell, name):.2f}' for name in more),
        ]
        for cell in cells
    }
    text, commands = [], []
    if study.extent.with_quality:
        found = read_json(study.commands.qualities)
        shares = {cell.line.title: found['images'][str(study.commands.folder(cell) / 'images')] for cell in cells}
        header += ['all but empty', 'a garment is named']
        rows = {**rows, **{name: [NONE] * (3 + len(more)) for name in found['references']}}
        for name, share in {**shares, **found['references']}.items():
            rows[name] += [share_text(share['empty']), share_text(share['named'])]
        text = [quality_text(found)]
        commands = [shown(typed.quality([cell for cell in cells if cell.line.model == study.scenes]))]
    if study.earlier:
        text.insert(0, prose('`earlier weights` are measured now, with the options of `Halton` and the same features.'))
    return [
        '## Scenes in more detail',
        table(header, [[name, *values] for name, values in rows.items()]),
        *text,
        code(*commands) if commands else '',
    ]


def share_text(share: Mapping) -> str:
    """A share with its confidence interval, in percent."""
    low, high = share['interval']
    return f'{share["share"]:.1%} ({low:.1%} to {high:.1%})'


def quality_text(found: Mapping) -> str:
    """What the two shares mean."""
    rule, known = found['definition'], found['classifier']
    return prose(
        f'Shares with their 95 % confidence intervals. A scene is all but empty if at most {rule["empty_share"]:.0%} '
        f'of its pixels differ from its median colour by more than {rule["colour_distance"]:g} levels. A garment is '
        f'named if a classifier that was trained on the real training scenes gives it a probability above '
        f'{rule["named"]:g}. On the validation scenes its mean average precision is '
        f'{known["mean_average_precision"]:.2f}: it names {known["recall"]:.0%} of their '
        f'garments, and {known["precision"]:.0%} of those that it names are there.'
    )


def with_classes(study: Study, typed: Commands) -> list[str]:
    """Distances of conditional weights by scale of the guidance."""
    lines = study.guidances()
    if study.garments is None:
        return []
    cells = [Cell(line, study.detail_steps) for line in lines]
    scores = [
        [cell.line.title, *(f'{study.score(cell, name):.2f}' for name in ('fid', 'precision', 'recall'))]
        for cell in cells
    ]
    return [
        '## Classes and guidance',
        prose(
            'Weights with the ten garments as classes, trained on images of one garment. All classes in turn, against '
            'the validation images of one garment. These distances cannot be compared with those of scenes.'
        ),
        distance_table(study, lines, 'guidance'),
        table([f'{study.detail_steps} steps', 'distance', 'precision', 'recall'], scores),
        cell_commands(study, typed, cells[-1]),
        '![Generated garments, a row for each class, columns for each scale](../images/generation_classes.webp)',
        prose(f'*The first images of each class with {study.detail_steps} steps, not chosen.*'),
    ]


def rates(study: Study, typed: Commands) -> list[str]:
    """Images a second by steps, with and without guidance."""
    rows = []
    for line in study.timed_lines():
        found = [study.rates(line, steps) for steps in study.extent.steps]
        rows.append([line.title, *(f'{median:.3g} ({low:.3g} to {high:.3g})' for median, low, high in found)])
    load = read_json(study.load_file)
    busy = f'The load of the machine was {load:.1f} before: other programs made these slower.' if load > _IDLE else ''
    threads = f'OMP_NUM_THREADS={study.threads}'
    where = f'with `{threads}`' if study.commands.device.startswith('cpu') else f'on {machine_class()}'
    line, steps = study.timed()[0]
    batch = min(BATCH_SIZE, study.commands.timed_images)
    return [
        '## Images a second',
        table(['images a second', *(f'{count} steps' for count in study.extent.steps)], rows),
        prose(
            f'Median and range of {study.extent.turns} runs, which take turns, in float32 {where} and '
            f'batches of {batch} images. It is the rate at the end of the progress bar; the start of the '
            f'program is not in it. {busy}'
        ),
        code(f'{threads} {shown(typed.time(line, steps, 0))}'),
    ]


def search(study: Study, typed: Commands) -> list[str]:
    """The search of the schedule."""
    if not study.extent.trials:
        return []
    found = read_json(study.commands.trials)
    settings, best, published = found['settings'], found['best'], found['trials'][0]
    command = typed.search(study.scenes, study.extractors[0], study.detail_steps, study.extent.trials)
    return [
        '## Search',
        code(shown(command)),
        prose(
            f'found `{best["options"]}`, the best of {len(found["trials"])} trials with {settings["num_images"]} '
            f'images of seed {SEARCH_SEED}: {best["distance"]:.2f}, and {published["distance"]:.2f} for the published '
            f'schedule. The tables above measure it again with seed {SEED}.'
        ),
    ]


def predictor_curves(work_dir: Path) -> dict[str, list[tuple[int, float]]]:
    """Cross entropy of the validations of a predictor's training, by share of masked tokens."""
    return {share: read_curve(work_dir, f'predictor/cross_entropy@{share}') for share in MASKED}


def predictor_config(work_dir: Path) -> str:
    """Name of the config of a training, which mmengine writes into its work dir.

    Raises:
        LogError: It is not there.
    """
    configs = sorted(work_dir.glob('*.py'))
    if not configs:
        raise LogError(f'{work_dir} has no config: give the work dir of a training')
    return configs[0].stem


def predictor(work_dir: Path) -> list[str]:
    """Validation of the predictor in its training."""
    rows = []
    for share, curve in predictor_curves(work_dir).items():
        best, last = min(curve, key=lambda point: point[1]), curve[-1]
        rows.append([f'{float(share):.0%}', *(f'{value:.3f} ({at:,})' for at, value in (best, last))])
    return [
        '## Validation of the predictor',
        code(f'addp train {predictor_config(work_dir)}'),
        '![Cross entropy of masked tokens by iteration](../images/predictor_validation.svg)',
        table(['masked tokens', 'lowest cross entropy (iteration)', 'last one'], rows),
        prose('Cross entropy of the masked tokens of validation scenes, in the training of the token predictor.'),
    ]


def measured_with(study: Study) -> list[str]:
    """Machine, versions and weights."""
    stamps = [read_json(path)['seconds'] for path in sorted(study.commands.work_dir.glob('stamps/*.json'))]
    gpu = ' Not measured on a GPU.' if study.commands.device.startswith('cpu') else ''
    files = {path: file_fingerprint(path) for model in study.models for path in weight_files(model)}
    return [
        '## Measured with',
        prose(f'{machine_class()}.{gpu} All {len(stamps)} commands took {clock(sum(stamps))} minutes together.'),
        prose(', '.join(f'{name} {version}' for name, version in versions().items()) + '.'),
        table(['weights', 'SHA-256'], [[path.name, f'`{found}`'] for path, found in files.items()]),
    ]
