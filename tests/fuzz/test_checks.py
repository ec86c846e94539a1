# Copyright (c) addp_mm contributors. Apache-2.0.
"""The checks before a training answer every config with success or an error for users."""

import copy
from functools import cache

from helpers.refusals import refusal
from helpers.strategies import odd_floats
from hypothesis import given
from hypothesis import strategies as st
from mmengine.config import Config

from addp_mm.checks.check_list import settings_checks, training_checks
from addp_mm.config.config_file import load_config

NAMES = (
    'addp-vit-nano-p8_ft_1xb32-fp32-300i_fashion-scenes-64px',
    'addp_vit-nano-p8_2xb16-fp32-4k_fashion-scenes-64px',
)
VALUES = (
    st.sampled_from(
        [
            None,
            True,
            '',
            'x',
            'addp_mm.X',
            0,
            -1,
            10**400,
            [],
            [[]],
            {},
            [None],
            dict(type='x'),
            dict(type=None),
            (1, 'a'),
            [dict(a=1)],
        ]
    )
    | odd_floats
)


@cache
def config(name):
    return load_config(name)


@cache
def places(name):
    """The paths of all values of a config."""

    def below(node, path):
        items = node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list | tuple) else ()
        for key, value in items:
            yield (*path, key)
            yield from below(value, (*path, key))

    return list(below(config(name).to_dict(), ()))


@given(st.data(), st.sampled_from(NAMES))
def test_a_config_with_any_value_at_any_place_is_taken_or_refused(data, name):
    content = copy.deepcopy(config(name).to_dict())
    *path, key = data.draw(st.sampled_from(places(name)))
    node = content
    for part in path:
        node = node[part]
    if isinstance(node, tuple):
        return
    if isinstance(node, dict) and data.draw(st.booleans()):
        del node[key]
    else:
        node[key] = data.draw(VALUES)
    cfg = Config(content)
    for check in (*settings_checks(cfg, ('model',)), *training_checks(cfg)):
        if refusal(check.run):
            return
