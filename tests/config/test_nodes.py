# Copyright (c) addp_mm contributors. Apache-2.0.
"""Values inside a config are found by their dotted keys."""

import pytest
from mmengine.config import Config

from addp_mm.config.nodes import node_at, nodes_below

CFG = Config(dict(model=dict(neck=None, heads=[dict(type='A'), dict(type='B')]), hooks=[]))


@pytest.mark.parametrize(
    'key, value',
    [
        ('model.heads.1.type', 'B'),
        ('model.heads.1', dict(type='B')),
        ('model.neck', None),
        ('model.heads.2', 'absent'),
        ('model.heads.last', 'absent'),
        ('model.neck.type', 'absent'),
        ('model.heads.1.type.B', 'absent'),
        ('loss', 'absent'),
        ('', 'absent'),
    ],
)
def test_a_value_or_the_default(key, value):
    assert node_at(CFG, key, 'absent') == value


def test_values_are_yielded_from_the_outside_to_the_inside():
    found = list(nodes_below(CFG.model, 'model'))
    assert [key for key, _ in found] == [
        'model',
        'model.neck',
        'model.heads',
        'model.heads.0',
        'model.heads.0.type',
        'model.heads.1',
        'model.heads.1.type',
    ]
    assert [key for key, value in nodes_below(CFG) if value == 'B'] == ['model.heads.1.type']
    assert all(node_at(CFG, key) == value for key, value in found)
