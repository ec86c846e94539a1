# Copyright (c) addp_mm contributors. Apache-2.0.
"""The report of the demo, and its commands."""

import re
import shutil
from dataclasses import replace
from pathlib import Path

import demo
import numpy as np
import pytest
from demo_report.demo_page import build_page
from demo_report.drawings import CLASS_COLOURS, Instance, decode_mask, detected_instances, instance_cell, scene_grid
from demo_report.finetunings import TASKS, load_config
from helpers.demo_files import CLASSES, ROOT, box_mask, png, train_records, write_data, write_run, write_scalars
from helpers.html_page import ParsedPage
from matplotlib.colors import to_rgb
from PIL import Image

from addp_mm.benchmark.step_runner import Done
from addp_mm.report.logs import LogError


@pytest.fixture
def finished(tmp_path):
    """A demo in ``tmp_path`` whose steps are all done."""
    write_data(tmp_path / 'data')
    planned = demo.plan(tmp_path, short=False)
    write_scalars(planned.pretrain, '20260101_000000', train_records(range(5, 105, 5), 30))
    for step in (50, 100):
        png(planned.pretrain / f'20260101_000000/vis_data/vis_image/generated_{step}.png', (260, 260), step)
    png(planned.samples / 'grid.png', (530, 530))
    png(planned.samples / 'steps.png', (1200, 200))
    for run in planned.runs:
        write_run(run, tmp_path)
    done = {name: Done(61.0, 900.0, skipped=False) for name in planned.steps}
    return replace(
        planned,
        data_root=tmp_path / 'data',
        done=done,
        runs=[replace(run, data_root=tmp_path / 'data') for run in planned.runs],
    )


def test_the_report_shows_every_result_with_its_commands(finished, tmp_path):
    size = build_page(finished).write(tmp_path / 'report.html')
    html = (tmp_path / 'report.html').read_text()
    assert size == len(html.encode()) < 8_000_000
    parsed = ParsedPage(html)
    assert parsed.external() == []
    figures = re.findall(r'<figure>(.*?)</figure>', html, re.DOTALL)
    assert len(figures) >= 9
    for figure in figures:
        assert re.search(r'<figcaption>.+</figcaption>\s*<details>.*<pre>python \S', figure, re.DOTALL)
    for number in ('63.2', '53.2', '31.2', '21.2', '28.7', '18.7', '51.5', '41.5', '+10.0'):
        assert number in parsed.text
    assert 'Seed 0' in parsed.text
    assert '20,000 training images' in parsed.text
    assert '6,000 training images' in parsed.text
    for step in finished.steps.values():
        assert step.shown in parsed.text
    assert [image['alt'] for image in parsed.attributes('img')][
        -1
    ] == 'line charts: ViT classifier, Mask R-CNN, UperNet'
    assert 'no meaning' not in parsed.text


def test_a_short_report_says_that_its_numbers_have_no_meaning(finished):
    html = build_page(replace(finished, short=True)).html()
    assert html.index('have no meaning') < html.index('<figure>')


@pytest.mark.parametrize(
    'path',
    [
        'samples/grid.png',
        'samples/steps.png',
        'pretrain/20260101_000000/vis_data/scalars.json',
        'pretrain/20260101_000000/vis_data/vis_image',
        'cls_addp_seed0/test/metrics.json',
        'det_random_seed0/test/predictions.segm.json',
        'seg_addp_seed0/test/labels/000001.png',
        'seg_random_seed0/train/20260101_000000/vis_data/scalars.json',
    ],
)
def test_a_missing_output_of_a_step_is_named(finished, tmp_path, path):
    target = tmp_path / path
    if target.is_dir():
        shutil.rmtree(target)
    else:
        target.unlink()
    named = path.split('/20260101')[0]
    with pytest.raises(LogError, match=re.escape(str(tmp_path / named))):
        build_page(finished)


def test_a_missing_metric_is_an_error_and_no_detection_is_zero(finished, tmp_path):
    by_name = {run.folder.name: run for run in finished.runs}
    (tmp_path / 'seg_addp_seed0/test/metrics.json').write_text('{"aAcc": 1.0}')
    with pytest.raises(LogError, match='has no mIoU; it has aAcc'):
        by_name['seg_addp_seed0'].results()
    (tmp_path / 'det_addp_seed0/test/metrics.json').write_text('{}')
    assert by_name['det_addp_seed0'].results() == {'Box AP': 0.0, 'Mask AP': 0.0}


def test_the_detections_with_the_highest_scores_are_drawn_without_duplicates():
    boxes = {'bag': (8, 8, 20, 20), 'coat': (9, 8, 20, 20), 'dress': (36, 20, 18, 30), 'far': (2, 50, 6, 6)}
    found = [
        dict(image_id=image_id, category_id=category, score=score, bbox=list(box), segmentation=box_mask(*box))
        for image_id, category, score, box in (
            (1, 3, 0.04, boxes['dress']),
            (1, 1, 0.12, boxes['bag']),
            (1, 2, 0.07, boxes['coat']),
            (1, 2, 0.01, boxes['far']),
            (2, 2, 0.9, boxes['far']),
        )
    ]
    drawn = detected_instances(found, image_id=1, count=2)
    assert [(one.label, one.score, one.box) for one in drawn] == [(0, 0.12, boxes['bag']), (2, 0.04, boxes['dress'])]
    assert len(detected_instances(found, image_id=1, count=9)) == 3
    assert detected_instances(found, image_id=3, count=2) == []


def test_a_model_without_detections_is_named(finished, tmp_path):
    assert 'detects nothing' not in build_page(finished).html()
    for kind in ('bbox', 'segm'):
        (tmp_path / f'det_random_seed0/test/predictions.{kind}.json').write_text('[]')
    html = build_page(finished).html()
    assert 'Mask R-CNN from random weights detects nothing' in html
    assert 'Mask R-CNN from ADDP weights detects nothing' not in html


def test_masks_are_tinted_and_boxes_are_drawn():
    mask = decode_mask(box_mask(8, 16, 20, 22))
    assert mask.sum() == 20 * 22
    assert mask[16:38, 8:28].all()
    scene = Image.new('RGB', (64, 64), (100, 100, 100))
    cell = instance_cell(scene, [Instance(1, (8, 16, 20, 22), mask, 0.5)])
    colour = 255 * np.array(to_rgb(CLASS_COLOURS[1]))
    assert np.abs(cell.pixels[20, 10] - (40 + 0.6 * colour)).max() <= 1
    assert len(np.unique(cell.pixels[0, 0])) == 1
    assert scene_grid(['Scene'], [[cell]], CLASSES).alt == '1 scenes; columns: Scene'


@pytest.mark.parametrize('short', [False, True])
def test_every_command_names_tools_configs_and_options_that_exist(short):
    from addp_mm.config.config_file import load_config as checked

    planned = demo.plan(Path('work_dirs/demo'), short)
    for step in planned.steps.values():
        assert (ROOT / step.command[0]).is_file()
        if '--cfg-options' in step.command:
            options = list(step.command[step.command.index('--cfg-options') + 1 :])
            checked(str(ROOT / step.command[1]), options)


@pytest.mark.parametrize('task', TASKS, ids=lambda task: task.name)
def test_random_weights_differ_from_addp_weights_in_nothing_else(task):
    addp, random = (load_config(task.config(weights)).to_dict() for weights in ('addp', 'random'))
    assert addp['model']['backbone'].pop('init_cfg')['checkpoint'].endswith('addp_nano-p8.safetensors')
    assert random['model']['backbone'].pop('init_cfg') is None
    assert addp == random
