# Copyright (c) addp_mm contributors. Apache-2.0.
"""The demo's page, and that its commands are what they say."""

import re
import shutil
from dataclasses import replace
from pathlib import Path

import demo
import numpy as np
import pytest
from demo_report.demo_page import build_page
from demo_report.finetunings import TASKS, load_config
from demo_report.steps import Done
from helpers.demo_files import CLASSES, ROOT, box_mask, png, train_records, write_data, write_run, write_scalars
from PIL import Image

from addp_mm.report import page as page_module
from addp_mm.report import pictures
from addp_mm.report.logs import LogError
from addp_mm.report.page import external_references


@pytest.fixture
def finished(tmp_path):
    """A demo in ``tmp_path`` whose steps all left what they would."""
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


def test_report_shows_every_result_with_its_commands(finished, tmp_path):
    size = build_page(finished).write(tmp_path / 'report.html')
    html = (tmp_path / 'report.html').read_text()
    assert size == len(html.encode()) < 8_000_000
    assert not external_references(html)
    figures = re.findall(r'<figure>(.*?)</figure>', html, re.DOTALL)
    assert len(figures) >= 9
    for figure in figures:
        assert re.search(r'<figcaption>.+</figcaption><details>.*<pre>python \S', figure, re.DOTALL)
    for number in ('63.2', '53.2', '31.2', '21.2', '28.7', '18.7', '51.5', '41.5', '+10.0'):
        assert number in html
    assert 'Seed 0' in html
    assert '20,000 training images' in html
    assert '6,000 training images' in html
    for step in finished.steps.values():
        assert page_module.escape(step.shown) in html
    assert html.count('class="line addp"') == 4
    assert html.count('class="line random"') == 3
    assert html.count('class="scene"') == 3 * 3
    assert 'bag 22' in html
    assert 'bag 12' not in html
    assert 'mean nothing' not in html


def test_short_report_says_that_its_numbers_mean_nothing(finished):
    html = build_page(replace(finished, short=True)).html()
    assert html.index('mean nothing') < html.index('<figure>')


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
def test_what_a_step_did_not_write_is_named(finished, tmp_path, path):
    target = tmp_path / path
    if target.is_dir():
        shutil.rmtree(target)
    else:
        target.unlink()
    named = path.split('/20260101')[0]
    with pytest.raises(LogError, match=re.escape(str(tmp_path / named))):
        build_page(finished)


def test_metric_that_was_not_written_is_an_error_and_nothing_found_is_zero(finished, tmp_path):
    by_name = {run.folder.name: run for run in finished.runs}
    (tmp_path / 'seg_addp_seed0/test/metrics.json').write_text('{"aAcc": 1.0}')
    with pytest.raises(LogError, match='does not tell mIoU; it tells aAcc'):
        by_name['seg_addp_seed0'].results()
    (tmp_path / 'det_addp_seed0/test/metrics.json').write_text('{}')
    assert by_name['det_addp_seed0'].results() == {'Box AP': 0.0, 'Mask AP': 0.0}


def test_the_surest_boxes_are_drawn_however_unsure_and_one_at_a_place():
    places = {'bag': (8, 8, 20, 20), 'coat': (9, 8, 20, 20), 'dress': (36, 20, 18, 30), 'far': (2, 50, 6, 6)}
    found = [
        dict(
            image_id=image_id,
            category_id=category,
            score=score,
            bbox=list(places[place]),
            segmentation=box_mask(*places[place]),
        )
        for image_id, category, score, place in (
            (1, 3, 0.04, 'dress'),
            (1, 1, 0.12, 'bag'),
            (1, 2, 0.07, 'coat'),
            (1, 2, 0.01, 'far'),
            (2, 2, 0.9, 'far'),
        )
    ]
    drawn = pictures.found_instances(found, image_id=1, count=2)
    assert [(one.label, one.score, one.box) for one in drawn] == [(0, 0.12, places['bag']), (2, 0.04, places['dress'])]
    assert len(pictures.found_instances(found, image_id=1, count=9)) == 3
    assert pictures.found_instances(found, image_id=3, count=2) == []


def test_model_that_found_nothing_is_said_to_have(finished, tmp_path):
    assert 'found nothing' not in build_page(finished).html()
    for kind in ('bbox', 'segm'):
        (tmp_path / f'det_random_seed0/test/predictions.{kind}.json').write_text('[]')
    html = build_page(finished).html()
    assert 'Mask R-CNN from random weights found nothing at all in these scenes.' in html
    assert 'Mask R-CNN from ADDP weights found nothing' not in html


def test_plates_of_boxes_at_one_corner_do_not_hide_each_other():
    mask = np.zeros((64, 64), bool)
    boxes = [(20, 20, 24, 30), (20, 20, 30, 24), (21, 20, 26, 26)]
    drawing = pictures.draw_instances(
        Image.new('RGB', (64, 64)), [pictures.Instance(i, box, mask) for i, box in enumerate(boxes)], CLASSES
    )
    plates = [
        tuple(map(float, found))
        for found in re.findall(r'<rect x="(\S+)" y="(\S+)" width="(\S+)" height="(\S+)" fill=', drawing)
    ]
    assert len(plates) == 3
    for index, (x, y, w, h) in enumerate(plates):
        assert x >= 0
        assert y >= 0
        assert x + w <= 64.1
        assert y + h <= 64.1
        for left, top, long, high in plates[:index]:
            assert x + w <= left or left + long <= x or y + h <= top or top + high <= y


def test_masks_and_labels_are_drawn_where_they_are():
    scene = Image.new('RGB', (64, 64), (100, 100, 100))
    mask = pictures.decode_mask(box_mask(8, 16, 20, 22))
    assert mask.sum() == 20 * 22
    assert mask[16:38, 8:28].all()
    drawing = pictures.draw_instances(scene, [pictures.Instance(1, (8, 16, 20, 22), mask, 0.5)], CLASSES)
    assert 'x="8.0" y="16.0" width="20.0" height="22.0"' in drawing
    assert 'coat 50' in drawing
    labels = np.ones((64, 64), np.uint8)
    labels[0, 0] = 3
    drawn = pictures.draw_label_map(scene, labels).astype(int)
    colour = pictures.rgb(pictures.CLASS_COLOURS[1])
    assert np.abs(drawn[0, 0] - (40 + 0.6 * colour)).max() <= 1
    assert len(np.unique(drawn[1, 1])) == 1


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
