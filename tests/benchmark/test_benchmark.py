# Copyright (c) addp_mm contributors. Apache-2.0.
"""tools/benchmark_backbones.py: measurements, resume, failures, trainings and refused options."""

import csv
import shutil
from collections import namedtuple

import pytest
from helpers.benchmark_runs import benchmark, rows
from helpers.html_page import ParsedPage

from addp_mm.benchmark.backbones import Choice
from addp_mm.benchmark.benchmark import Benchmark
from addp_mm.benchmark.measuring import Timing
from addp_mm.benchmark.tasks import DATA
from addp_mm.config.config_file import load_config

QUICK = ['--repeats', '2', '--steps', '2', '--warmup', '0', '--batch-size', '2', '--device', 'cpu']
QUICK += ['--work-dir', 'work']
FASHION = ['--data', 'fashion_scenes', '--task', 'cls']


@pytest.mark.slow
def test_costs_are_measured_once_and_a_failure_is_a_row(commands, tiny_listing, tmp_path, capsys):
    run = [*FASHION, *QUICK, '--listing', tiny_listing, '--backbones', 'one', 'broken', 'two']
    assert benchmark(*run) == 1
    # the turns alternate, and a backbone that fails gets no more turns
    turns = [name.removeprefix('fashion_scenes_cls_') for name in commands if 'turn' in name]
    assert turns == ['one_turn0', 'broken_turn0', 'two_turn0', 'one_turn1', 'two_turn1']
    found = rows(tmp_path / 'work')
    assert list(found) == ['one', 'broken', 'two']
    for row in (found['one'], found['two']):
        assert row['failures'] == []
        assert (row['batch_size'], row['img_size'], row['precision']) == (2, [32, 32], 'float32')
        # embeddings and layers of width 16, and the head of two classes
        assert row['parameters']['model'] == row['parameters']['backbone'] + 2 * 16 + 2
        assert row['macs']['model'] > row['macs']['backbone'] > 0
        for mode in ('inference', 'training'):
            speed = row['images_per_second'][mode]
            assert speed['steps'] == 4
            assert 0 < speed['low'] <= speed['median'] <= speed['high']
            assert 0.05 < speed['peak_gib'] < 16
    per_layer = 12 * 16 * 16 + 13 * 16
    assert found['one']['parameters']['model'] - found['two']['parameters']['model'] == per_layer
    assert 'patch_size' in ' '.join(found['broken']['failures'])
    assert 'failed: The broken, Classification on FashionScenes: ' in capsys.readouterr().out
    _check_reports(tmp_path / 'work')

    commands.clear()
    benchmark(*run)
    assert all('broken' in name for name in commands)
    commands.clear()
    (tmp_path / 'work/results/fashion_scenes_cls_two_turn1.json').unlink()
    run[-3:] = ['one', 'two']
    assert benchmark(*run) == 0
    assert commands == ['fashion_scenes_cls_two_turn1']
    commands.clear()
    assert benchmark(*run, '--steps', '3', '--repeats', '1') == 0
    assert commands == ['fashion_scenes_cls_one_turn0', 'fashion_scenes_cls_two_turn0']


def _check_reports(folder):
    markdown, html = (folder / 'benchmark.md').read_text(), (folder / 'benchmark.html').read_text()
    parsed = ParsedPage(html)
    assert parsed.external() == []
    assert [image['alt'] for image in parsed.attributes('img')] == ['images/s: Speed']
    assert '3 measurement' not in parsed.text
    assert 'failed: see the end of the page' in parsed.text
    lines = list(csv.DictReader((folder / 'benchmark.csv').open()))
    for row, line in zip(rows(folder).values(), lines, strict=True):
        for mode, speed in row['images_per_second'].items():
            text = f'{speed["median"]:.3g} ({speed["low"]:.3g} to {speed["high"]:.3g})'
            assert f'| {text} |' in markdown
            assert text in parsed.text
            assert float(line[f'images_per_second.{mode}.median']) == speed['median']
        if row['parameters']:
            assert f'| {row["parameters"]["model"] / 1e6:.3g} (' in markdown


@pytest.mark.slow
def test_a_training_on_small_scenes_is_shortened_tested_and_not_repeated(commands, small_scenes, tmp_path):
    run = [*FASHION, *QUICK, '--repeats', '0', '--backbones', 'vit_nano', '--data-root', small_scenes, '--train']
    run += ['--max-iters', '2', '--cfg-options', 'train_dataloader.batch_size=2', '--seeds']
    assert benchmark(*run, '0') == 0
    assert benchmark(*run, '0', '1') == 0
    score = rows(tmp_path / 'work')['vit_nano']['metrics']['Accuracy']
    assert set(score['by_seed']) == {'0', '1'}
    assert score['mean'] == pytest.approx(sum(score['by_seed'].values()) / 2)
    assert [name for name in commands if 'seed' in name] == [
        f'fashion_scenes_cls_vit_nano_seed{seed}_{part}' for seed in (0, 1) for part in ('train', 'test')
    ]
    assert (tmp_path / 'work/runs/fashion_scenes_cls_vit_nano_seed1/train/iter_2.pth').is_file()
    page = ParsedPage((tmp_path / 'work/benchmark.html').read_text())
    assert 'Accuracy, % against parameters' in page.attributes('img')[0]['alt']
    assert f'{score["mean"]:.1f} ± {score["standard_deviation"]:.1f}' in (tmp_path / 'work/benchmark.md').read_text()


@pytest.mark.parametrize(
    'arguments, message',
    [
        (['--backbones', 'addp_nan'], 'error: --backbones addp_nan is unknown; did you mean addp_nano'),
        (['--backbones', 'vit_nano', 'vit_nano'], 'error: --backbones vit_nano is given twice'),
        (['--task', 'dets'], 'error: --task dets is unknown; did you mean det?; choose from cls, det, seg'),
        (['--data', 'cocoo'], 'error: --data cocoo is unknown; did you mean coco?; choose from coco, '),
        (['--data', 'coco', '--task', 'seg'], 'error: --task seg: coco has no such task. Add --data ade20k, fashion'),
        (['--data', 'coco', '--backbones', 'vit_nano'], 'vit_nano is a backbone of --data fashion_scenes'),
        (['--seeds', '1'], 'error: --seeds has no effect without --train'),
        (['--train', '--seeds', '1', '1'], 'error: --seeds 1 is given twice'),
        (['--listing', 'none.yml'], 'error: --listing none.yml cannot be read: No such file'),
        (['--data-root', 'coco=x'], 'error: --data-root coco=x: --data has no coco'),
        (['--device', 'cpuu'], 'error: --device cpuu: this PyTorch cannot use the device here'),
    ],
)
def test_wrong_options_are_refused_in_one_line(commands, arguments, message, tmp_path):
    given = arguments if '--data' in arguments else ['--data', 'fashion_scenes', *arguments]
    error = benchmark(*given, *(['--device', 'cpu'] if '--device' not in arguments else []))
    assert message in error
    assert '\n' not in error
    assert not commands
    assert not list(tmp_path.rglob('*.json'))


def test_missing_data_are_named_with_their_source(commands, tmp_path):
    error = benchmark(*FASHION, '--train', '--backbones', 'vit_nano', '--data-root', 'none')
    assert 'FashionScenes is not in none: none/fashion_scenes.json does not exist' in error
    assert 'python tools/dataset_converters/fashion_scenes.py none' in error
    assert not commands


def test_too_small_a_disk_is_refused_before_the_training(commands, tiny_listing, workplace, monkeypatch):
    usage = namedtuple('usage', 'total used free')(10, 9, 1)
    monkeypatch.setattr(shutil, 'disk_usage', lambda path: usage)
    run = [*FASHION, '--repeats', '0', '--listing', tiny_listing, '--backbones', 'one', '--train', '--work-dir', 'work']
    error = benchmark(*run, '--data-root', workplace / 'data')
    assert 'the checkpoints of 3 trainings need 0.0 GB, but the disk has 0.0 GB' in error
    assert commands == ['fashion_scenes_cls_one_count']


def test_a_work_dir_is_used_by_one_benchmark_at_a_time(tmp_path, commands):
    from addp_mm.folder_lock import lock_folder

    with lock_folder(tmp_path / 'work'):
        error = benchmark(*FASHION, '--backbones', 'vit_nano', '--work-dir', 'work')
    assert 'work is in use by another run' in error


@pytest.mark.slow
def test_backbones_are_swapped_into_the_base_and_one_that_does_not_fit_is_a_row(tmp_path):
    pairs = [('ade20k', 'seg'), ('fashion_scenes', 'seg')]
    names = ['timm:resnet18', 'timm:vit_tiny_patch16_224']
    *fitting, vit = Choice(names, pairs, {}, tmp_path / 'configs').contestants()
    base = load_config(DATA['ade20k'].bases['seg'])
    for one, name in zip(fitting[:2], names, strict=True):
        cfg = one.load()
        assert (cfg.model.backbone.type, one.backbone) == ('addp_mm.TimmBackbone', name)
        # the optimizer is that of the backbone's family
        for key in ('train_dataloader', 'train_cfg', 'test_dataloader'):
            assert cfg[key] == base[key]
        assert cfg.model.decode_head.type == base.model.decode_head.type
    # the heads of this base begin at stride 2
    assert 'strides 2, 4, 8, 16' in vit.failure
    unfit = Benchmark([vit], tmp_path)
    unfit.measure(Timing(1, 1, 0, 'cpu'))
    assert unfit.rows[0].failures == [vit.failure]
    assert sorted(path.stem for path in (tmp_path / 'configs').iterdir()) == sorted(one.config.stem for one in fitting)
