# Copyright (c) addp_mm contributors. Apache-2.0.
"""The values of options: what is text, a number, a list or a dict."""

import math
import os

import pytest

from addp_mm.config.option_values import read_value
from addp_mm.errors import ConfigError

WRITTEN = [
    'work_dirs/my dir',
    ' outer spaces ',
    'my,file.pth',
    '/data/lr=0.1,v2/x.pth',
    'C:\\new\\table.txt',
    '$HOME/x',
    "it's here, now",
    '(old) run',
    'x[1,2]',
    'a]b,c',
    '2024_11_29',
    'hf://user/repo@main:x.pth',
    'https://x.y/z?a=1,2',
    '',
]


@pytest.mark.parametrize('text', WRITTEN)
def test_text_is_kept_as_written(text):
    assert read_value(text) == text
    assert read_value(text, present='work_dirs/x') == text


@pytest.mark.parametrize(
    'text, value',
    [
        ('5', 5),
        (' -5 ', -5),
        ('1e-3', 0.001),
        ('+2.', 2.0),
        ('True', True),
        ('false', False),
        ('None', None),
        ('"my run"', 'my run'),
        ("'5'", '5'),
        ('[2,5,8,11]', [2, 5, 8, 11]),
        ('1,2,3', [1, 2, 3]),
        ('1,', [1]),
        ('[]', []),
        ('()', ()),
        ('(0.1,0.2)', (0.1, 0.2)),
        ('(1)', (1,)),
        ('(1,)', (1,)),
        ('[a,b]', ['a', 'b']),
        ('[a b, "c,d"]', ['a b', 'c,d']),
        ('[(a,b),(c,d)]', [('a', 'b'), ('c', 'd')]),
        ('(1,2),(3,4)', [(1, 2), (3, 4)]),
        ('"a","b"', ['a', 'b']),
        ('{"max_norm": 1}', {'max_norm': 1}),
        ('{"a": null, "b": [1, true]}', {'a': None, 'b': [1, True]}),
        ('{a: b, "c": (1,)}', {'a': 'b', 'c': (1,)}),
        ('dict(type=SGD, lr=1e-2, note="a=b, c")', {'type': 'SGD', 'lr': 0.01, 'note': 'a=b, c'}),
        ('[dict(type=EMAHook, momentum=0.1)]', [{'type': 'EMAHook', 'momentum': 0.1}]),
        ('dict()', {}),
        ('~/x', os.path.expanduser('~/x')),
    ],
)
def test_values_are_read_as_in_python(text, value):
    read = read_value(text)
    assert read == value
    assert type(read) is type(value)
    assert math.isnan(read_value('nan'))


@pytest.mark.parametrize(
    'text, present, value',
    [
        ('a,b', ['c'], ['a', 'b']),
        ('a,b', ('c',), ['a', 'b']),
        ('a,b', 'c', 'a,b'),
        ('a,b', None, 'a,b'),
        ('11', [2, 5], 11),
        ('"0.1"', 0.2, 0.1),
        ('"[1,2]"', [3], [1, 2]),
        ('"0.1"', 'x', '0.1'),
    ],
)
def test_the_present_value_decides_where_a_text_has_two_meanings(text, present, value):
    assert read_value(text, present) == value


@pytest.mark.parametrize('text', ['[1,2', '(a', '(1]', '["a]', '[1,(2]'])
def test_brackets_that_do_not_match_are_refused(text):
    with pytest.raises(ConfigError, match='the brackets of .* do not match'):
        read_value(text)


@pytest.mark.parametrize('text', ['{1,2}', 'dict(1)', '{:1}', 'dict(=1)'])
def test_a_dict_needs_keys(text):
    with pytest.raises(ConfigError, match='is a dict whose entry'):
        read_value(text)
