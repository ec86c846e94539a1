# Copyright (c) addp_mm contributors. Apache-2.0.
"""A written config has the values of its plan, in lines that say why they are there."""

import ast
import re
import subprocess
import sys

import pytest
from mmengine.config import Config

from addp_mm.config.config_file import load_config
from addp_mm.config.shipped import ShippedFileError
from addp_mm.errors import ConfigError
from addp_mm.swap.differences import differences
from addp_mm.swap.plan import Change, SwapPlan
from addp_mm.swap.source_text import COLUMNS, source_of
from addp_mm.swap.write_config import base_name, config_text, write_config

DETECTOR = 'mmdet::faster_rcnn/faster-rcnn_r50_fpn_1x_coco.py'
BACKBONE = dict(
    type='addp_mm.ADDPViT',
    arch='base',
    global_blocks=(2, 5, 8, 11),
    frozen_stages=-1,
    drop_path_rate=0.1,
    init_cfg=dict(type='addp_mm.Pretrained', checkpoint='hf://Changyao/ADDP/addp-vit-base-16.pth', prefix=None),
)


def plan(*changes: Change, **others) -> SwapPlan:
    return SwapPlan(DETECTOR, 'mmdet', 'det', 'addp_b', changes, **others)


PLAN = plan(
    Change('custom_imports', dict(imports=['addp_mm']), 'Registers the backbone before mmdet is imported'),
    Change('model.backbone', BACKBONE, 'The backbone with its weights', delete=True),
    Change('model.data_preprocessor.mean', [1.0, 2, 3e-5], 'The colours of the weights'),
    Change('model.neck', [dict(type='A', x=(1,)), dict(type='B')], 'A chain of necks', delete=True),
    Change('optim_wrapper.optimizer', dict(type='AdamW', lr=1e-4), 'Transformers are trained by AdamW', delete=True),
    Change('optim_wrapper.paramwise_cfg', {'custom_keys': {'.cls_token': dict(decay_mult=0.0)}}, 'As published'),
    Change('train_dataloader.batch_size', 4, 'Memory'),
    notes=('BatchNorm of the heads stays as it is',),
)


def test_the_file_has_exactly_the_planned_values(tmp_path):
    path = tmp_path / 'new.py'
    write_config(PLAN, path)
    written, planned = Config.fromfile(path), PLAN.apply(load_config(DETECTOR))
    assert list(differences(planned.to_dict(), written.to_dict())) == []
    assert written.custom_imports == dict(imports=['addp_mm'])
    assert written.model.backbone.to_dict() == BACKBONE
    assert path.read_text() == config_text(PLAN)


def test_every_change_has_its_reason_above_it():
    lines = config_text(PLAN).splitlines()
    for change in PLAN.changes:
        name = change.key.rpartition('.')[2]
        (place,) = (number for number, line in enumerate(lines) if f'# {change.reason}' in line)
        assert re.match(rf' *{name} ?= ?', lines[place + 1])
    assert '# Note: BatchNorm of the heads stays as it is' in lines


def test_values_are_formatted_as_a_formatter_does(tmp_path):
    pytest.importorskip('ruff')
    long = plan(
        *PLAN.changes[:2],
        Change('model.neck', dict(type='N', levels=[dict(name='level', stride=i) for i in range(9)]), 'Levels. ' * 30),
        Change('model.x', {'a key': list(range(80)), 'b': {'if': 'x' * 130, 'c': ()}}, 'More'),
    )
    text = config_text(long)
    assert max(map(len, text.splitlines())) <= COLUMNS or 'x' * 130 in text
    (tmp_path / 'new.py').write_text(text)
    options = '--line-length=120', '--config=format.quote-style="single"', '--isolated'
    run = subprocess.run([sys.executable, '-m', 'ruff', 'format', *options, '--diff', 'new.py'], cwd=tmp_path)
    assert run.returncode == 0


@pytest.mark.parametrize(
    'value', [1, 2.5e-7, 'a\'b"c', None, True, (), (1,), [], {}, {'a': {'b c': [1, (2, 3)]}}, [['x' * 70] * 3] * 2]
)
@pytest.mark.parametrize('column', [0, 110])
def test_source_gives_the_value_back(value, column):
    text = source_of(value, column)
    assert eval(text) == value
    ast.parse(text)


def test_names_for_base(tmp_path):
    (tmp_path / 'configs').mkdir()
    config = tmp_path / 'configs/a.py'
    config.write_text('x = 1')
    assert base_name(str(config), tmp_path / 'new.py') == 'configs/a.py'
    assert base_name(str(config), tmp_path / 'deep/er/new.py') == '../../configs/a.py'
    assert base_name('mmdet::faster-rcnn_r50_fpn_1x_coco', 'new.py') == DETECTOR
    nano = 'addp-vit-nano-p8_ft_1xb32-fp32-300i_fashion-scenes-64px'
    assert base_name(nano, 'new.py') == f'addp_mm::cls/{nano}.py'
    with pytest.raises(ShippedFileError, match='did you mean'):
        base_name(nano[:-2] + 'xp', 'new.py')


def test_a_file_that_inherits_from_a_shipped_config_needs_no_import_of_this_package(tmp_path):
    base = base_name('addp-vit-nano-p8_ft_1xb32-fp32-300i_fashion-scenes-64px', 'new.py')
    path = tmp_path / 'new.py'
    write_config(SwapPlan(base, 'mmpretrain', 'cls', 'b', (Change('model.head.topk', (1,), 'Few'),)), path)
    assert "_base_ = __import__('addp_mm').config_path('cls/" in path.read_text()
    assert Config.fromfile(path).model.head.topk == (1,)


@pytest.mark.parametrize(
    'name, message',
    [
        (
            'mmdet::faster_rcnn/faster-rcnn_r50_fpn_1x_cocoo.py',
            'did you mean .*faster_rcnn/faster-rcnn_r50_fpn_1x_coco',
        ),
        ('mmdet::fasterrcnn/faster-rcnn_r50_fpn_1x_coco.py', 'did you mean .*faster-rcnn_r50_fpn_1x_coco'),
        ('mmseg::zzzzzz', r'mmseg has no config zzzzzz\. They are in .*configs'),
        ('mmseg::', 'mmseg has no config without a name'),
    ],
)
def test_a_misspelt_name_of_a_package_is_refused(name, message):
    with pytest.raises(ConfigError, match=message):
        load_config(name)


def test_a_package_that_is_missing_is_named(monkeypatch):
    monkeypatch.setattr('addp_mm.config.stock.is_installed', lambda _: False)
    with pytest.raises(ConfigError, match='mmdet is not installed: pip install'):
        load_config('mmdet::x')
