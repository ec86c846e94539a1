# Copyright (c) addp_mm contributors. Apache-2.0.
"""docs/swap.md: its example is what the command writes, its table and its strides are correct."""

import json
import os
import re
import time
from pathlib import Path

import pytest
import swap_table
import torch

from addp_mm.config.config_file import load_config
from addp_mm.config.stock import stock_name
from addp_mm.swap.plan_swap import plan_swap
from addp_mm.swap.write_config import config_text

DOC = (Path(__file__).parents[2] / 'docs/swap.md').read_text()
RESULTS = json.loads(swap_table.RESULTS.read_text())


def test_the_example_is_what_the_command_writes():
    config, backbone = re.search(r'^addp swap (\S+) --backbone (\S+) --out my_detector\.py$', DOC, re.M).groups()
    (example,) = re.findall(r'```python\n# my_detector\.py\n(.*?)```', DOC, re.S)
    assert example == config_text(plan_swap(load_config(config), config, backbone))


def test_the_table_is_that_of_the_results():
    assert swap_table.table(swap_table.finished(RESULTS)) in DOC, 'run: python .dev/swap_table.py --no-run'


def test_the_configs_of_the_table_exist_and_are_of_all_kinds():
    names = swap_table.names()
    assert len(set(names)) == len(names) >= 60
    assert [stock_name(name) for name in names] == names
    assert {name.partition('::')[0] for name in names} == {'mmdet', 'mmseg', 'mmpretrain'}


def test_a_table_lists_causes_once_and_without_folders():
    error = swap_table.without_folders('no (/home/me/lib/python3.11/site-packages/mmdet/x.py,\nline 1)')
    assert 'site-packages' not in str(RESULTS)
    cases = dict(addp_b=dict(error=None, no_trial=None), swin_t=dict(error=error), volo_d1=dict(error=error))
    text = swap_table.table({'mmdet::a.py': dict(model='A, Head', cases=cases)})
    assert '| `mmdet::a.py` | A, Head | ✓ | – (1) | – (1) |' in text
    assert '1 of 3 swaps are possible, in 1 configs.' in text
    assert text.endswith('1. no (mmdet/x.py, line 1)')
    cases['swin_t'] = dict(error=None, no_trial='a package is missing')
    assert '| ✓ | ✓ (1) | – (2) |' in swap_table.table({'b': dict(model='A', cases=cases)})


@pytest.mark.parametrize('limit, cause', [(0.01, 'not finished in 0.01 s'), (60, 'the process ended without a result')])
def test_a_case_that_ends_without_a_result_is_listed(limit, cause, monkeypatch):
    monkeypatch.setattr(swap_table, 'run_case', lambda *_: time.sleep(5) if limit < 1 else os._exit(1))
    assert swap_table.in_new_process('a', 'b', limit)['error'] == cause


def test_strides_of_the_necks():
    """The lines ``| `SimpleFPN(…)` | strides | channels |`` hold for patches of 16 px."""
    from addp_mm.models.necks import FourScaleNeck, SimpleFPN

    lines = re.findall(r'^\| `(\w+)\((.*?)\)` \| ([\d, ]+) \| (.+?) \|$', DOC, re.M)
    assert len(lines) >= 4
    for kind, arguments, strides, channels in lines:
        if kind == 'SimpleFPN':
            neck, maps = eval(f'SimpleFPN(16, {arguments})', {'SimpleFPN': SimpleFPN}), [torch.rand(1, 16, 16, 16)]
        else:
            neck, maps = FourScaleNeck(16), [torch.rand(1, 16, 16, 16)] * 4
        outs = neck(maps)
        assert [256 // one.shape[2] for one in outs] == [int(one) for one in strides.split(',')]
        assert {one.shape[1] for one in outs} == {256 if channels == '`out_channels` (256)' else 16}
