# Copyright (c) addp_mm contributors. Apache-2.0.
"""The page of .dev/demo.py, from what its steps wrote."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path

import numpy as np
from PIL import Image

from addp_mm.report import pictures
from addp_mm.report.charts import line_chart
from addp_mm.report.logs import LogError, read_curve, read_pictures
from addp_mm.report.machine import machine_class, versions
from addp_mm.report.page import Page, table
from demo_report.finetunings import TASKS, WEIGHTS, FineTuning
from demo_report.steps import ROOT, Done, Step, clock

EXAMPLES = 5
HEADS = ('Scene', 'Ground truth', 'ADDP weights', 'Random weights')
LEAD = (
    'A vision transformer learned to generate images by alternating between discrete tokens and pixels (ADDP). '
    'This page shows what it generates, how, and what the same transformer is then worth as the backbone of a '
    'classifier, of Mask R-CNN and of UperNet, beside one that starts from random weights under the same schedule.'
)
SHORT = (
    'Short run: every step had only a handful of iterations and images, to see that all of it works. '
    'The numbers and pictures of this page mean nothing.'
)


@dataclass(frozen=True)
class DemoRun:
    """Where the demo put things, relative to the repository, and how its steps went.

    Args:
        pretrain, samples: Work dir of the pre-training; folder of the generated images.
        data_root: FashionScenes.
        runs: The six fine-tunings.
        steps: All steps by name, in order.
        done: How each went, by name.
        short: Whether it was a run of a handful of iterations.
    """

    pretrain: Path
    samples: Path
    data_root: Path
    runs: Sequence[FineTuning]
    steps: Mapping[str, Step]
    done: Mapping[str, Done]
    short: bool

    def run(self, task: str, weights: str) -> FineTuning:
        return next(run for run in self.runs if (run.task.name, run.weights) == (task, weights))

    def commands(self, *names: str) -> list[str]:
        return [self.steps[name].shown for name in names]

    def commands_of(self, *tasks: str) -> list[str]:
        return [
            step.shown
            for run in self.runs
            if run.task.name in tasks
            for step in self.steps.values()
            if step.name in (f'{run.folder.name}_train', f'{run.folder.name}_test')
        ]


def build_page(demo: DemoRun) -> Page:
    """The whole page.

    Raises:
        LogError: If what a step should have written is not there; the message names the file.
    """
    page = Page('ADDP from pixels to detections', LEAD, SHORT if demo.short else '')
    _add_results(page, demo)
    _add_generation(page, demo)
    _add_pretraining(page, demo)
    _add_detections(page, demo)
    _add_segmentations(page, demo)
    _add_curves(page, demo)
    _add_making(page, demo)
    return page


def _open(path: Path) -> Image.Image:
    path = ROOT / path
    if not path.is_file():
        raise LogError(f'{path} is missing: the step that writes it has not run, or has failed')
    return Image.open(path).convert('RGB')


def _cell(value: float, weights: str) -> str:
    return (
        f'<b>{value:.1f}</b><span class="bar" style="--share:{max(0.0, min(value, 100.0)):.1f};'
        f'--colour:var(--{weights})"></span>'
    )


def _key() -> str:
    items = ''.join(f'<li><i class="{name}"></i>{title[0].upper()}{title[1:]}</li>' for name, title in WEIGHTS.items())
    return f'<ul class="legend">{items}</ul>'


def _add_results(page: Page, demo: DemoRun) -> None:
    page.section('What pre-training is worth')
    rows, trained = [], []
    for task in TASKS:
        addp, random = demo.run(task.name, 'addp'), demo.run(task.name, 'random')
        ours, theirs, schedule = addp.results(), random.results(), addp.schedule()
        trained.append(
            f'{task.model} {schedule["iterations"]:,} iterations, batch {schedule["batch_size"]}, '
            f'{schedule["images"]:,} training images'
        )
        for metric in task.metrics:
            difference = ours[metric.title] - theirs[metric.title]
            rows.append(
                [
                    f'{escape(metric.title)}<small>{escape(task.title)}, {escape(task.model)}</small>',
                    _cell(ours[metric.title], 'addp'),
                    _cell(theirs[metric.title], 'random'),
                    f'<b>{difference:+.1f}</b>'.replace('-', '\u2212'),
                ]
            )
    seeds = sorted({run.seed for run in demo.runs})
    caption = (
        f'In percent, on {_validation(demo)}. Seed {", ".join(map(str, seeds))}: one run each, so read small '
        f'differences with care. Both columns have the same schedule: {"; ".join(trained)}.'
    )
    page.figure(
        table(['', 'ADDP weights', 'Random weights', 'Difference'], rows, 'results'),
        caption,
        demo.commands_of(*(task.name for task in TASKS)),
    )


def _validation(demo: DemoRun) -> str:
    manifest = json.loads((ROOT / demo.data_root / 'fashion_scenes.json').read_text())
    return f'{manifest["val"]:,} validation scenes and {manifest["objects_val"]:,} validation pictures of one garment'


def _scenes(demo: DemoRun, split: str) -> list[Path]:
    return sorted((ROOT / demo.data_root / 'scenes' / split).glob('*.png'))


def _tiles(images: Sequence[Image.Image], columns: int, margin: int = 2) -> Image.Image:
    width, height = images[0].size
    rows = -(-len(images) // columns)
    sheet = Image.new('RGB', (columns * (width + margin) + margin, rows * (height + margin) + margin), 'white')
    for index, image in enumerate(images):
        sheet.paste(image, (margin + index % columns * (width + margin), margin + index // columns * (height + margin)))
    return sheet


def _add_generation(page: Page, demo: DemoRun) -> None:
    page.section(
        'Generation',
        'Generation starts with every token masked. At each step the transformer sees '
        'the pixels so far, names tokens, and keeps those that it is surest of.',
    )
    generated = _open(demo.samples / 'grid.png')
    paths = _scenes(demo, 'train')[:64]
    real = _tiles([_open(path) for path in paths], columns=8)
    content = (
        f'<div class="pair"><div><p>Generated</p>{pictures.img(generated, "grid of generated scenes")}</div>'
        f'<div><p>Training scenes</p>{pictures.img(real, "grid of training scenes")}</div></div>'
    )
    page.figure(
        content,
        'Left: images that ADDP generated from the shipped weights, none left out. Right: the first '
        f'{len(paths)} training scenes (FashionScenes: garments of Fashion-MNIST on calm '
        'backgrounds).',
        demo.commands('generate', 'scenes'),
    )
    strip = pictures.img(_open(demo.samples / 'steps.png'), 'token maps above pixels, from all masked to none')
    page.figure(
        f'<div class="wide" tabindex="0">{strip}</div>',
        'The first image through the alternating steps, from left to right. Above: its tokens, a colour a '
        'code; hatched places are still masked. Below: the pixels that the tokenizer decodes at that step, '
        'which the transformer sees at the next.',
        demo.commands('generate'),
    )


def _add_pretraining(page: Page, demo: DemoRun) -> None:
    page.section(
        'Pre-training',
        'The demo goes on with pre-training from the shipped weights for a minute or so; '
        'the weights themselves come from the full schedule of the same config.',
    )
    previews = read_pictures(ROOT / demo.pretrain, 'generated')
    chosen = [previews[0], previews[-1]] if len(previews) > 1 else previews
    cells = ''.join(
        f'<div><p>After {step:,} iterations</p>{pictures.img(image, "preview of generated scenes")}</div>'
        for step, image in chosen
    )
    page.figure(
        f'<div class="pair">{cells}</div>',
        'Previews that the pre-training sends to its visualizer (and to TensorBoard), each from the same noise.',
        demo.commands('pretrain'),
    )
    curve = line_chart({'addp': read_curve(ROOT / demo.pretrain)}, 'Pre-training loss', 'iteration')
    page.figure(
        f'<div class="charts one">{curve}</div>',
        'Soft cross entropy on masked places, mean of each logging '
        'interval. Every iteration draws its own noise level, hence '
        'the ups and downs.',
        demo.commands('pretrain'),
    )


def _add_detections(page: Page, demo: DemoRun) -> None:
    page.section('Detection')
    truth = pictures.read_json(ROOT / demo.data_root / 'annotations/instances_val.json')
    classes = [category['name'] for category in sorted(truth['categories'], key=lambda category: category['id'])]
    results = {weights: _detections(demo.run('det', weights)) for weights in WEIGHTS}
    examples, drawn = [], dict.fromkeys(WEIGHTS, 0)
    for record in _examples(truth):
        image = _open(demo.data_root / 'scenes/val' / record['file_name'])
        garments = pictures.true_instances(truth, record['id'])
        cells = [pictures.img(image, 'scene'), pictures.draw_instances(image, garments, classes)]
        for weights in WEIGHTS:
            found = pictures.found_instances(results[weights], record['id'], len(garments))
            drawn[weights] += len(found)
            cells.append(pictures.draw_instances(image, found, classes))
        examples.append(cells)
    page.figure(
        pictures.rows(HEADS, examples),
        f'Mask R-CNN on the first {len(examples)} validation scenes with at least two garments: boxes, masks, '
        'classes, and the score in percent. Of each model as many boxes are shown as the scene has garments, '
        'the ones of the highest scores, however low these are, and one at a place: a box that overlaps a '
        f'surer one by an IoU above {pictures.SAME_PLACE:g} is left out.{_nothing_found(drawn)}',
        demo.commands_of('det'),
    )


def _nothing_found(drawn: Mapping[str, int]) -> str:
    """A sentence on each model without a single box, so that an empty column is not taken for a fault of the page."""
    return ''.join(
        f' Mask R-CNN from {WEIGHTS[weights]} found nothing at all in these scenes.'
        for weights, count in drawn.items()
        if not count
    )


def _detections(run: FineTuning) -> list[dict]:
    """Boxes and masks of one test, joined: CocoMetric writes them to two files in the same order."""
    prefix = str(ROOT / run.predictions)
    masks = pictures.read_json(Path(f'{prefix}.segm.json'))
    boxes = pictures.read_json(Path(f'{prefix}.bbox.json'))
    if len(boxes) != len(masks):
        raise LogError(f'{prefix}.bbox.json and .segm.json differ in length; test {run.title} again')
    return [{**mask, 'bbox': box['bbox'], 'score': box['score']} for box, mask in zip(boxes, masks, strict=True)]


def _examples(truth: Mapping) -> list[Mapping]:
    """The first validation scenes with at least two garments."""
    counts: dict[int, int] = {}
    for annotation in truth['annotations']:
        counts[annotation['image_id']] = counts.get(annotation['image_id'], 0) + 1
    return [record for record in truth['images'] if counts.get(record['id'], 0) >= 2][:EXAMPLES]


def _add_segmentations(page: Page, demo: DemoRun) -> None:
    page.section('Segmentation')
    truth = pictures.read_json(ROOT / demo.data_root / 'annotations/instances_val.json')
    classes = [category['name'] for category in sorted(truth['categories'], key=lambda category: category['id'])]
    folders = [demo.data_root / 'labels/val', *(demo.run('seg', weights).predictions for weights in WEIGHTS)]
    examples = []
    for record in _examples(truth):
        image = _open(demo.data_root / 'scenes/val' / record['file_name'])
        cells = [pictures.img(image, 'scene')]
        for folder in folders:
            path = ROOT / folder / record['file_name']
            if not path.is_file():
                raise LogError(f'{path} is missing: the step that writes it has not run, or has failed')
            labels = np.asarray(Image.open(path))
            cells.append(pictures.img(pictures.draw_label_map(image, labels), 'scene with labels'))
        examples.append(cells)
    page.figure(
        pictures.rows(HEADS, examples) + pictures.legend(classes),
        'UperNet on the same scenes. Garments are tinted by class; what is background to the model is grey.',
        demo.commands_of('seg'),
    )


def _add_curves(page: Page, demo: DemoRun) -> None:
    page.section('Loss curves')
    charts = [
        line_chart({weights: demo.run(task.name, weights).curve() for weights in WEIGHTS}, task.model, 'iteration')
        for task in TASKS
    ]
    page.figure(
        f'{_key()}<div class="charts">{"".join(charts)}</div>',
        "Training loss of the six fine-tunings: the sum of each model's losses, mean of each logging interval.",
        [step.shown for step in demo.steps.values() if step.name.endswith('_train')],
    )


def _add_making(page: Page, demo: DemoRun) -> None:
    total = sum(done.seconds for done in demo.done.values())
    page.section(
        'How this page was made',
        f'On {machine_class()}. The steps took {clock(total)} minutes one by one; '
        'several ran at once where cores allowed. Every step is a tool that may be '
        'called by hand.',
    )
    rows = [
        [escape(step.title), clock(demo.done[name].seconds), f'{demo.done[name].peak_mib:,.0f} MiB']
        for name, step in demo.steps.items()
    ]
    page.figure(
        table(['Step', 'Minutes', 'Largest process'], rows, 'numbers'),
        'Time and peak memory of each step. Worker processes that load data come on top.',
        [step.shown for step in demo.steps.values()],
    )
    numbers = [[escape(name), escape(version)] for name, version in versions().items()]
    page.figure(table(['Package', 'Version'], numbers, 'numbers'), 'Versions.', ['python -m pip list'])
