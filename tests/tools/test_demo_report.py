# Copyright (c) addp_mm contributors. Apache-2.0.
"""The demo's steps and page, from logs and pictures that the tests write."""
import json
import re
import shutil
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

ROOT = Path(__file__).parents[2]
sys.path[:0] = [str(ROOT / 'tools'), str(ROOT / 'tools/benchmarks')]

import demo  # noqa: E402
import fashion_scenes_transfer as transfer  # noqa: E402
from report import page as page_module  # noqa: E402
from report import pictures  # noqa: E402
from report.charts import line_chart, ticks  # noqa: E402
from report.demo_report import build_page  # noqa: E402
from report.finetunings import TASKS, finetunings, load_config  # noqa: E402
from report.logs import LogError, read_curve, read_metrics, read_pictures  # noqa: E402
from report.page import Page, external_references  # noqa: E402
from report.steps import Done, Step, StepFailed, StepRunner  # noqa: E402

CLASSES = ('bag', 'coat', 'dress')


def write_scalars(folder: Path, start: str, records: list[dict]) -> Path:
    file = folder / start / 'vis_data/scalars.json'
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(''.join(json.dumps(record) + '\n' for record in records))
    return file


def train_records(steps, scale=1.0) -> list[dict]:
    return [dict(lr=1e-3, loss=scale / step, time=0.1, iter=step, step=step) for step in steps]


def png(path: Path, size=(64, 64), seed=0) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, (*size[::-1], 3)).astype(np.uint8)
    Image.fromarray(pixels).save(path)


def box_mask(x, y, w, h) -> dict:
    """A filled box as uncompressed run lengths of a 64 × 64 picture."""
    counts = [64 * x + y, h]
    for _ in range(w - 1):
        counts += [64 - h, h]
    return dict(size=[64, 64], counts=[*counts, 64 * 64 - sum(counts)])


def write_data(root: Path, scenes: int = 3) -> None:
    annotations, images = [], []
    for index in range(scenes):
        name = f'{index:06d}.png'
        for split in ('train', 'val'):
            png(root / 'scenes' / split / name, seed=index)
        labels = np.ones((64, 64), np.uint8)
        labels[8:30, 8:28] = 2
        (root / 'labels/val').mkdir(parents=True, exist_ok=True)
        Image.fromarray(labels).save(root / 'labels/val' / name)
        images.append(dict(id=index + 1, file_name=name, width=64, height=64))
        for category, box in ((1, (8, 8, 20, 22)), (3, (34, 20, 18, 30))):
            annotations.append(dict(id=len(annotations) + 1, image_id=index + 1, category_id=category, bbox=list(box),
                                    area=box[2] * box[3], iscrowd=0, segmentation=box_mask(*box)))
    truth = dict(images=images, annotations=annotations,
                 categories=[dict(id=i + 1, name=name) for i, name in enumerate(CLASSES)])
    (root / 'annotations').mkdir(parents=True)
    (root / 'annotations/instances_val.json').write_text(json.dumps(truth))
    manifest = dict(train=20000, val=1000, objects_train=6000, objects_val=1000)
    (root / 'fashion_scenes.json').write_text(json.dumps(manifest))


def write_run(run, root: Path) -> None:
    """What the training and the test of one fine-tuning leave behind; ADDP weights do better by 10."""
    better = 10 if run.weights == 'addp' else 0
    write_scalars(root / run.folder / 'train', '20260101_000000', train_records(range(10, 60, 10), 40 - better))
    test = root / run.folder / 'test'
    test.mkdir(parents=True)
    values = {'cls': {'accuracy/top1': 53.2 + better},
              'det': {'coco/bbox_mAP': 0.212 + better / 100, 'coco/segm_mAP': 0.187 + better / 100},
              'seg': {'mIoU': 41.5 + better, 'aAcc': 90.0}}[run.task.name]
    (test / 'metrics.json').write_text(json.dumps(values))
    if run.task.name == 'det':
        found = [dict(image_id=1, category_id=1, score=score, segmentation=box_mask(8, 8, 20, 20))
                 for score in (0.91, 0.12)]
        (test / 'predictions.segm.json').write_text(json.dumps(found))
        (test / 'predictions.bbox.json').write_text(json.dumps([dict(f, bbox=[8, 8, 20, 20]) for f in found]))
    if run.task.name == 'seg':
        shutil.copytree(root / 'data/labels/val', test / 'labels')


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
    return replace(planned, data_root=tmp_path / 'data', done=done,
                   runs=[replace(run, data_root=tmp_path / 'data') for run in planned.runs])


def test_curve_of_a_resumed_run_goes_on_where_it_was_left(tmp_path):
    write_scalars(tmp_path, '20260101_000000', train_records((10, 20, 30)))
    write_scalars(tmp_path, '20260101_000100', [*train_records((20,), scale=2.0), {'accuracy/top1': 5.0, 'step': 20}])
    assert read_curve(tmp_path) == [(10, 0.1), (20, 0.1)]
    with pytest.raises(LogError, match=r"do not tell 'los'; they tell .*loss"):
        read_curve(tmp_path, 'los')


def test_curve_without_a_log_or_with_a_broken_one_says_where(tmp_path):
    with pytest.raises(LogError, match=re.escape(f'{tmp_path} holds no')):
        read_curve(tmp_path)
    file = write_scalars(tmp_path, '20260101_000000', train_records((10,)))
    file.write_text(file.read_text() + '{"loss": 0.\n')
    with pytest.raises(LogError, match=re.escape(f'{file}, line 2, is not JSON')):
        read_curve(tmp_path)


def test_metrics_that_are_missing_or_broken_say_where(tmp_path):
    with pytest.raises(LogError, match='metrics.json is missing'):
        read_metrics(tmp_path / 'metrics.json')
    (tmp_path / 'metrics.json').write_text('{')
    with pytest.raises(LogError, match='metrics.json is not JSON'):
        read_metrics(tmp_path / 'metrics.json')


def test_pictures_are_in_the_order_of_iterations(tmp_path):
    for step in (1000, 200):
        png(tmp_path / f'20260101_000000/vis_data/vis_image/generated_{step}.png', (8, 8))
    assert [step for step, _ in read_pictures(tmp_path, 'generated')] == [200, 1000]
    with pytest.raises(LogError, match='reconstructions'):
        read_pictures(tmp_path, 'reconstructions')


@pytest.mark.parametrize('low, high, expected', [
    (0, 100, [0, 25, 50, 75, 100]), (0.13, 0.87, [0, 0.2, 0.4, 0.6, 0.8, 1.0]), (3, 3, [3, 4, 5, 6])])
def test_ticks_are_round_and_cover_the_range(low, high, expected):
    assert ticks(low, high) == pytest.approx(expected)


def test_chart_places_points_and_refuses_what_is_not_a_number():
    chart = line_chart({'addp': [(0, 0.0), (10, 1.0)], 'random': [(0, 1.0), (10, 0.5)]}, 'a < b', 'iteration')
    lines = re.findall(r'polyline class="line (\w+)" points="([^"]+)"', chart)
    assert lines == [('addp', '40,196 348,26'), ('random', '40,26 348,111')]
    assert 'a &lt; b' in chart
    with pytest.raises(ValueError, match='not finite'):
        line_chart({'addp': [(0, float('nan'))]}, 'loss', 'iteration')
    with pytest.raises(ValueError, match='no points'):
        line_chart({'addp': []}, 'loss', 'iteration')


@pytest.mark.parametrize('part', [
    '<img src="picture.png">', '<img src=http://x.org/a.png>', '<link href="style.css">',
    "<script src='a.js'></script>", '<style>p { background: url(paper.png) }</style>',
    '<style>@import "a.css";</style>', '<svg><image href="a.png"/></svg>'])
def test_page_that_would_load_something_is_not_written(part, tmp_path):
    assert external_references(part)
    page = Page('t', 'l')
    page.section('s')
    page.figure(part, 'caption', ['python a.py'])
    with pytest.raises(ValueError, match='would load'):
        page.write(tmp_path / 'report.html')
    assert not (tmp_path / 'report.html').exists()


def test_addresses_in_text_anchors_and_data_load_nothing():
    assert not external_references('<p>see https://example.org, src=x</p><a href="#here">x</a>'
                                   '<img src="data:image/png;base64,AA=="><style>a { background: url(data:x) }</style>')


def test_figure_needs_caption_command_and_section():
    page = Page('t', 'l')
    with pytest.raises(ValueError, match='commands'):
        page.figure('x', 'caption', ['python a.py'])
    page.section('s')
    for caption, commands in (('', ['python a.py']), ('caption', [])):
        with pytest.raises(ValueError, match='commands'):
            page.figure('x', caption, commands)


def test_page_that_grew_too_large_is_not_written(tmp_path, monkeypatch):
    monkeypatch.setattr(page_module, 'MAX_BYTES', 1000)
    with pytest.raises(ValueError, match='more than'):
        Page('t', 'l').write(tmp_path / 'report.html')


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
    assert 'Seed 0' in html and '20,000 training images' in html and '6,000 training images' in html
    for step in finished.steps.values():
        assert page_module.escape(step.shown) in html
    assert html.count('class="line addp"') == 4 and html.count('class="line random"') == 3
    assert html.count('class="scene"') == 3 * 3
    assert 'bag 91' in html and 'bag 12' not in html
    assert 'mean nothing' not in html


def test_short_report_says_that_its_numbers_mean_nothing(finished):
    html = build_page(replace(finished, short=True)).html()
    assert html.index('mean nothing') < html.index('<figure>')


@pytest.mark.parametrize('path', [
    'samples/grid.png', 'samples/steps.png', 'pretrain/20260101_000000/vis_data/scalars.json',
    'pretrain/20260101_000000/vis_data/vis_image', 'cls_addp_seed0/test/metrics.json',
    'det_random_seed0/test/predictions.segm.json', 'seg_addp_seed0/test/labels/000001.png',
    'seg_random_seed0/train/20260101_000000/vis_data/scalars.json'])
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


def test_masks_and_labels_are_drawn_where_they_are():
    scene = Image.new('RGB', (64, 64), (100, 100, 100))
    mask = pictures.decode_mask(box_mask(8, 16, 20, 22))
    assert mask.sum() == 20 * 22 and mask[16:38, 8:28].all()
    drawing = pictures.draw_instances(scene, [pictures.Instance(1, (8, 16, 20, 22), mask, 0.5)], CLASSES)
    assert 'x="8.0" y="16.0" width="20.0" height="22.0"' in drawing and 'coat 50' in drawing
    labels = np.ones((64, 64), np.uint8)
    labels[0, 0] = 3
    drawn = pictures.draw_label_map(scene, labels).astype(int)
    colour = pictures.rgb(pictures.CLASS_COLOURS[1])
    assert np.abs(drawn[0, 0] - (40 + 0.6 * colour)).max() <= 1
    assert len(np.unique(drawn[1, 1])) == 1


@pytest.mark.parametrize('short', [False, True])
def test_every_command_names_tools_configs_and_options_that_exist(short):
    from addp_mm.engine.config_file import load_config as checked
    planned = demo.plan(Path('work_dirs/demo'), short)
    for step in planned.steps.values():
        assert (ROOT / step.command[0]).is_file()
        if '--cfg-options' in step.command:
            options = list(step.command[step.command.index('--cfg-options') + 1:])
            checked(str(ROOT / step.command[1]), options)


@pytest.mark.parametrize('task', TASKS, ids=lambda task: task.name)
def test_random_weights_differ_from_addp_weights_in_nothing_else(task):
    addp, random = (load_config(task.config(weights)).to_dict() for weights in ('addp', 'random'))
    assert addp['model']['backbone'].pop('init_cfg')['checkpoint'].endswith('addp_nano-p8.safetensors')
    assert random['model']['backbone'].pop('init_cfg') is None
    assert addp == random


def echo(name: str, folder: Path, text: str = 'x', **fields) -> Step:
    """A step that writes ``text`` at the end of a file and prints it."""
    code = f'print({text!r}); open({str(folder / name)!r}, "a").write({text!r})'
    return Step(name, f'Write {name}', ('-c', code), (folder / name,), **fields)


def test_steps_run_once_until_command_or_input_changes(tmp_path, capsys):
    (tmp_path / 'input').write_text('1')
    first = echo('first', tmp_path, inputs=(tmp_path / 'input',))
    second = echo('second', tmp_path, after=(first,))
    runner = StepRunner(tmp_path)
    assert not any(done.skipped for done in runner.run([first, second]).values())
    assert first.shown.startswith('python -c') and f'$ {first.shown}' in capsys.readouterr().out
    assert (tmp_path / 'logs/first.log').read_text() == 'x\n'
    assert all(done.skipped and done.peak_mib > 1 for done in runner.run([first, second]).values())
    (tmp_path / 'input').write_text('2')
    assert not any(done.skipped for done in runner.run([first, second]).values())
    changed = echo('second', tmp_path, 'y', after=(first,))
    done = runner.run([first, changed])
    assert done['first'].skipped and not done['second'].skipped
    (tmp_path / 'first').unlink()
    assert not runner.run([first])['first'].skipped


def test_step_waits_for_what_it_needs_and_empties_its_folder(tmp_path):
    own = tmp_path / 'own'
    own.mkdir()
    (own / 'left').write_text('from before')
    code = f'import os, time; time.sleep(.3); os.makedirs({str(own)!r}); open({str(own / "a")!r}, "w")'
    slow = Step('slow', 'Slow', ('-c', code), (own / 'a',), folder=own)
    code = f'open({str(own / "a")!r}); open({str(tmp_path / "b")!r}, "w")'
    then = Step('then', 'Then', ('-c', code), (tmp_path / 'b',), after=(slow,))
    StepRunner(tmp_path, jobs=2).run([slow, then])
    assert not (own / 'left').exists()


def test_failed_step_shows_its_log_and_keeps_what_is_done(tmp_path):
    first = echo('first', tmp_path)
    failing = Step('failing', 'Fail', ('-c', 'print("why"); raise SystemExit(3)'), (), after=(first,))
    after = echo('after', tmp_path, after=(failing,))
    with pytest.raises(StepFailed) as error:
        StepRunner(tmp_path).run([first, failing, after])
    message = str(error.value)
    assert 'exit status 3' in message and '| why' in message and failing.shown in message
    assert not (tmp_path / 'after').exists()
    assert StepRunner(tmp_path).run([first])['first'].skipped
    empty = Step('empty', 'Empty', ('-c', 'pass'), (tmp_path / 'never',))
    with pytest.raises(StepFailed, match='did not write .*never'):
        StepRunner(tmp_path).run([empty])


def test_spread_is_the_sample_standard_deviation():
    assert transfer.mean_and_spread([1.0, 2.0, 3.0]) == '2.0 ± 1.0'
    assert transfer.mean_and_spread([1.25]) == '1.2'


def test_verdict_hides_no_loss():
    results = {'Accuracy': dict(addp=[60, 61, 62], random=[50, 51, 59]),
               'mIoU': dict(addp=[40, 45, 50], random=[39, 41, 42]),
               'Box AP': dict(addp=[20, 21, 22], random=[20, 23, 24])}
    text = transfer.verdict(results)
    assert 'worst seed is above the best seed from random weights in Accuracy.' in text
    assert 'the seeds overlap, in mIoU.' in text
    assert '**ADDP weights are not above random weights in Box AP.**' in text


def test_benchmark_page_tells_seeds_data_and_commands(finished, tmp_path, monkeypatch):
    monkeypatch.setattr(transfer, 'fingerprint', lambda path: 'abc123')
    runs = [replace(run, data_root=tmp_path / 'data') for run in finetunings(tmp_path / 'bench', [0, 1])]
    for run in runs:
        write_run(run, tmp_path)
    steps = [step for run in runs for step in run.steps()]
    args = transfer.parse_args(['--seeds', '0', '1'])
    text = transfer.document(runs, steps, {step.name: Done(30.0, 1.0, False) for step in steps}, args)
    assert '| Classification, ViT classifier | Accuracy | 63.2 ± 0.0 | 53.2 ± 0.0 | +10.0 |' in text
    assert '| mIoU | random weights | 41.5 | 41.5 |' in text
    assert '| Detection | 20,000 | 16 |' in text
    assert 'abc123' in text and 'torch' in text
    for step in steps:
        assert step.shown in text
