# Copyright (c) addp_mm contributors. Apache-2.0.
"""The report of .dev/demo.py, from the files of its steps."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from addp_mm.benchmark.step import Step
from addp_mm.benchmark.step_runner import Done, clock
from addp_mm.generation.figures import image_grid
from addp_mm.report.figures import image_picture, line_charts
from addp_mm.report.logs import LogError, read_curve, read_image, read_json, read_previews
from addp_mm.report.machine import machine_class, versions
from addp_mm.report.page import Figure, Page, Section, Table
from demo_report.drawings import MAX_IOU, Cell, detected_instances, instance_cell, scene_grid, tinted, true_instances
from demo_report.finetunings import ROOT, TASKS, WEIGHTS, FineTuning

EXAMPLES = 5
COLUMNS = ('Scene', 'Ground truth', 'ADDP weights', 'Random weights')
COLOURS = {'ADDP weights': '#14708c', 'random weights': '#b8692a'}
LEAD = (
    'ADDP pre-trains a vision transformer by generating images: it alternates between discrete tokens and pixels. This '
    'page shows the images that it generates. It then compares the transformer, as the backbone of a classifier, of '
    'Mask R-CNN and of UperNet, with one that was trained from random weights with the same schedule.'
)
SHORT = (
    'Short run: each step had only a few iterations and images, to check that everything works. The numbers and '
    'figures on this page have no meaning.'
)


@dataclass(frozen=True)
class DemoRun:
    """The folders and steps of a demo.

    Args:
        pretrain: Work dir of the pre-training, relative to the repository.
        samples: Folder of the generated images.
        data_root: Folder of FashionScenes.
        runs: The six fine-tunings.
        steps: All steps in order, by name.
        done: Results of the steps, by name.
        short: Whether it is a run of a few iterations.
    """

    pretrain: Path
    samples: Path
    data_root: Path
    runs: Sequence[FineTuning]
    steps: Mapping[str, Step]
    done: Mapping[str, Done]
    short: bool

    def run(self, task: str, weights: str) -> FineTuning:
        """The fine-tuning on a task from 'addp' or 'random' weights."""
        return next(run for run in self.runs if (run.task.name, run.weights) == (task, weights))

    def commands(self, *names: str) -> list[str]:
        """The commands of steps."""
        return [self.steps[name].shown for name in names]

    def commands_of(self, *tasks: str) -> list[str]:
        """The commands that train and test the fine-tunings on some tasks."""
        folders = [run.folder.name for run in self.runs if run.task.name in tasks]
        return self.commands(*(f'{folder}_{part}' for folder in folders for part in ('train', 'test')))


def build_page(demo: DemoRun) -> Page:
    """Build the report.

    Raises:
        LogError: A file that a step writes is missing; the message names it.
    """
    sections = [
        _results(demo),
        _generation(demo),
        _pretraining(demo),
        _detection(demo),
        _segmentation(demo),
        _losses(demo),
        _making(demo),
    ]
    return Page('ADDP: from pixels to detections', LEAD, sections, SHORT if demo.short else '')


def _open(path: Path) -> Image.Image:
    return read_image(ROOT / path).convert('RGB')


def _results(demo: DemoRun) -> Section:
    rows, schedules = [], []
    for task in TASKS:
        addp, random = demo.run(task.name, 'addp'), demo.run(task.name, 'random')
        ours, theirs, schedule = addp.results(), random.results(), addp.schedule()
        schedules.append(
            f'{task.model} {schedule["iterations"]:,} iterations, batch {schedule["batch_size"]}, '
            f'{schedule["images"]:,} training images'
        )
        for metric in task.metrics:
            addp_value, random_value = ours[metric.title], theirs[metric.title]
            numbers = [f'{addp_value:.1f}', f'{random_value:.1f}', f'{addp_value - random_value:+.1f}']
            rows.append([metric.title, f'{task.title}, {task.model}', *numbers])
    manifest = read_json(ROOT / demo.data_root / 'fashion_scenes.json')
    seeds = ', '.join(str(seed) for seed in sorted({run.seed for run in demo.runs}))
    caption = (
        f'Percent, on {manifest["val"]:,} validation scenes and {manifest["objects_val"]:,} validation images of one '
        f'garment. Seed {seeds}, one run each: small differences may be chance. Both columns have the same schedule: '
        f'{"; ".join(schedules)}.'
    )
    table = Table(['Metric', 'Task', 'ADDP weights', 'Random weights', 'Difference'], rows)
    commands = demo.commands_of(*(task.name for task in TASKS))
    return Section('Does pre-training help?', [Figure(caption, commands, table=table)])


def _scenes(demo: DemoRun, split: str) -> list[Path]:
    return sorted((ROOT / demo.data_root / 'scenes' / split).glob('*.png'))


def _generation(demo: DemoRun) -> Section:
    paths = _scenes(demo, 'train')[:64]
    generated = image_picture(_open(demo.samples / 'grid.png'), 'grid of generated scenes', 'Generated')
    scenes = Image.fromarray(image_grid([np.asarray(_open(path)) for path in paths], 8))
    real = image_picture(scenes, 'grid of training scenes', 'Training scenes')
    grids = Figure(
        f'Left: images that ADDP generated from the shipped weights, without selection. Right: the first {len(paths)} '
        'training scenes (FashionScenes: garments of Fashion-MNIST on plain backgrounds).',
        demo.commands('generate', 'scenes'),
        [generated, real],
    )
    strip = image_picture(_open(demo.samples / 'steps.png'), 'token maps above images, from all masked to none')
    steps = Figure(
        'The steps of the first image, from left to right. Above: its tokens, one colour for each code; masked '
        'positions are hatched. Below: the pixels that the tokenizer decodes at this step, which are the input of the '
        'next step.',
        demo.commands('generate'),
        [strip],
    )
    text = (
        'Generation starts with all tokens masked. At each step the transformer sees the current pixels, predicts the '
        'tokens, and keeps those with the highest confidence.'
    )
    return Section('Generation', [grids, steps], text)


def _pretraining(demo: DemoRun) -> Section:
    found = read_previews(ROOT / demo.pretrain, 'generated')
    previews = Figure(
        'Images that the pre-training generates while it runs (also shown in TensorBoard), each time from the same '
        'noise.',
        demo.commands('pretrain'),
        [
            image_picture(image, 'preview', f'After {step:,} iterations')
            for step, image in dict(found[:1] + found[-1:]).items()
        ],
    )
    curve = line_charts({'Pre-training loss': {'': read_curve(ROOT / demo.pretrain)}}, 'iteration', {'': '#14708c'})
    loss = Figure(
        'Soft cross entropy on masked tokens, mean of each logging interval. Each iteration samples its own noise '
        'level, so the loss varies.',
        demo.commands('pretrain'),
        [curve],
    )
    text = (
        'The demo continues the pre-training from the shipped weights for about a minute. The shipped weights come '
        'from the full schedule of the same config.'
    )
    return Section('Pre-training', [previews, loss], text)


def _detection(demo: DemoRun) -> Section:
    truth, classes = _annotations(demo)
    results = {weights: _detections(demo.run('det', weights)) for weights in WEIGHTS}
    rows, drawn = [], Counter(dict.fromkeys(WEIGHTS, 0))
    examples = _examples(truth)
    for record in examples:
        image = _open(demo.data_root / 'scenes/val' / record['file_name'])
        garments = true_instances(truth, record['id'])
        cells = [Cell(np.asarray(image)), instance_cell(image, garments)]
        for weights in WEIGHTS:
            found = detected_instances(results[weights], record['id'], len(garments))
            drawn[weights] += len(found)
            cells.append(instance_cell(image, found))
        rows.append(cells)
    nothing = ''.join(
        f' Mask R-CNN from {WEIGHTS[weights]} detects nothing in these scenes.'
        for weights in WEIGHTS
        if not drawn[weights]
    )
    caption = (
        f'Mask R-CNN on the first {len(examples)} validation scenes with at least two garments: boxes, masks, classes, '
        'and scores in percent. For each model as many detections are shown as the scene has garments: those with the '
        'highest scores, even if these are low. A box that overlaps another with a higher score by an IoU above '
        f'{MAX_IOU:g} is not shown.{nothing}'
    )
    return Section('Detection', [Figure(caption, demo.commands_of('det'), [scene_grid(COLUMNS, rows, classes)])])


def _annotations(demo: DemoRun) -> tuple[dict, list[str]]:
    """COCO annotations of the validation scenes, and the names of the classes."""
    truth = read_json(ROOT / demo.data_root / 'annotations/instances_val.json')
    return truth, [category['name'] for category in sorted(truth['categories'], key=lambda category: category['id'])]


def _detections(run: FineTuning) -> list[dict]:
    """Boxes and masks of a test: CocoMetric writes them to two files in the same order."""
    prefix = str(ROOT / run.predictions)
    masks, boxes = read_json(Path(f'{prefix}.segm.json')), read_json(Path(f'{prefix}.bbox.json'))
    if len(boxes) != len(masks):
        raise LogError(f'{prefix}.bbox.json and .segm.json differ in length: test {run.title} again')
    return [{**mask, 'bbox': box['bbox'], 'score': box['score']} for box, mask in zip(boxes, masks, strict=True)]


def _examples(truth: Mapping) -> list[Mapping]:
    """The first validation scenes with at least two garments."""
    counts = Counter(annotation['image_id'] for annotation in truth['annotations'])
    return [record for record in truth['images'] if counts[record['id']] >= 2][:EXAMPLES]


def _segmentation(demo: DemoRun) -> Section:
    truth, classes = _annotations(demo)
    folders = [demo.data_root / 'labels/val', *(demo.run('seg', weights).predictions for weights in WEIGHTS)]
    rows = []
    for record in _examples(truth):
        image = _open(demo.data_root / 'scenes/val' / record['file_name'])
        # in label maps 0 is unlabelled and 1 is background
        maps = [np.asarray(read_image(ROOT / folder / record['file_name'])).astype(int) - 2 for folder in folders]
        rows.append([Cell(np.asarray(image)), *(Cell(tinted(image, labels)) for labels in maps)])
    caption = 'UperNet on the same scenes. Garments are coloured by class. Pixels of the background class are grey.'
    return Section('Segmentation', [Figure(caption, demo.commands_of('seg'), [scene_grid(COLUMNS, rows, classes)])])


def _losses(demo: DemoRun) -> Section:
    charts = {
        task.model: {WEIGHTS[weights]: demo.run(task.name, weights).curve() for weights in WEIGHTS} for task in TASKS
    }
    figure = Figure(
        "Training loss of the six fine-tunings: the sum of each model's losses, mean of each logging interval.",
        [step.shown for step in demo.steps.values() if step.name.endswith('_train')],
        [line_charts(charts, 'iteration', COLOURS)],
    )
    return Section('Loss curves', [figure])


def _making(demo: DemoRun) -> Section:
    total = sum(done.seconds for done in demo.done.values())
    rows = [
        [step.title, clock(demo.done[name].seconds), f'{demo.done[name].peak_mib:,.0f} MiB']
        for name, step in demo.steps.items()
    ]
    figures = [
        Figure(
            'Time and peak memory of each step. The memory of processes that load data is not included.',
            demo.commands(*demo.steps),
            table=Table(['Step', 'Minutes', 'Peak memory'], rows),
        ),
        Figure('Versions.', ['python -m pip list'], table=Table(['Package', 'Version'], list(versions().items()))),
    ]
    text = (
        f'Machine: {machine_class()}. The steps took {clock(total)} minutes in total; several ran at once with '
        'enough cores. Each step is a command that you can run by hand.'
    )
    return Section('How this page was created', figures, text)
