# Copyright (c) addp_mm contributors. Apache-2.0.
"""tools/benchmarks/communication.py: its tables, page and figure, and a check that fails."""

import json
from pathlib import Path

import communication
import pytest

import addp_mm  # noqa: F401  # before the packages: they need its mmcv._ext
from addp_mm.analysis.communication import two_processes
from addp_mm.benchmark.speed_page import as_markdown

ROOT = Path(__file__).parents[2]
ADDP = str(ROOT / 'configs/pretrain/addp_vit-nano-p8_2xb16-fp32-4k_fashion-scenes-64px.py')


def test_tables_page_and_figure(tmp_path, capsys):
    paths = {option: tmp_path / f'out.{option}' for option in ('json', 'md', 'svg')}
    options = ('--out', paths['json'], '--page', paths['md'], '--figure', paths['svg'], '--network-rate', '100')
    communication.main([ADDP, *map(str, options)])
    written = json.loads(paths['json'].read_text())
    (group,) = written['groups']
    titles = [table['title'] for table in group['tables']]
    assert titles[0] == 'A step of 8 processes'
    assert titles[-1] == 'Time of a step, 100 GB/s between nodes'
    step, sent = group['tables'][0]['rows'], group['tables'][1]
    gradients = next(row for row in step if row[0] == 'DDP: all-reduce of gradients')
    assert float(gradients[3]) == pytest.approx(2 * 7 / 8 * float(gradients[2]), abs=0.1)
    assert [row[0] for row in sent['rows']] == ['8', '16', '32', '64', '128', '256', '512', '1024']
    # the recipe has 32 images a step
    assert [row[1] for row in sent['rows']][:4] == ['1 x 4', '1 x 2', '1 x 1', '1 x 1']
    page = paths['md'].read_text()
    assert '**Nothing here was measured on a GPU.**' in page
    assert '](out.svg)' in page
    assert max(len(line) for line in page.partition('## ')[0].splitlines() if not line.startswith('python')) <= 100
    assert '<svg' in paths['svg'].read_text()
    assert 'Stated: 450 GB/s' in capsys.readouterr().out
    assert written['explanation'] in as_markdown('addp benchmark-speed', dict(communication=written), {})


def test_a_difference_fails(monkeypatch, capsys):
    monkeypatch.setattr(two_processes, 'record_steps', lambda cfg, strategies, size: [[] for _ in strategies])
    with pytest.raises(SystemExit, match='two processes exchange something else than was counted: addp_vit-nano'):
        communication.main([ADDP, '--check', '--processes', '8'])
    assert '| DDP | 4 | 0 | ' in capsys.readouterr().out


def test_a_config_without_the_images_of_a_step_is_refused():
    with pytest.raises(SystemExit, match='give the images of a step by --images'):
        communication.main([ADDP, '--cfg-options', 'auto_scale_lr.base_batch_size=0'])


def test_a_config_with_several_optimizers_is_refused():
    with pytest.raises(SystemExit, match='optim_wrapper has several optimizers'):
        communication.main([next(map(str, (ROOT / 'configs/pretrain').glob('vqgan_nano*.py')))])
