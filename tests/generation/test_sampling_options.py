# Copyright (c) addp_mm contributors. Apache-2.0.
"""The record of the options that addp generate and addp inpaint share."""

import hashlib

import pytest

from addp_mm.cli_options import ToolParser
from addp_mm.sampling_options import add_sampling_options, settings_of


@pytest.fixture
def parse(tmp_path):
    parser = ToolParser()
    parser.add_argument('config')
    parser.add_argument('checkpoint')
    add_sampling_options(parser)
    (tmp_path / 'addp.pth').write_bytes(b'weights')
    return lambda *options: parser.parse_args(['configs/nano.py', str(tmp_path / 'addp.pth'), *options])


def test_every_shared_option_is_recorded(parse):
    args = parse('--classes', 'all', '--guidance', '2', '--guidance-shape', 'linear')
    assert settings_of(args, [0, 1, 2]) == {
        **vars(args),
        'config': 'nano.py',
        'checkpoint': hashlib.sha256(b'weights').hexdigest(),
        'classes': 'all',
    }
    assert settings_of(parse('--classes', '2', 'dress'), [2, 0])['classes'] == [2, 0]
    assert settings_of(parse(), None)['classes'] is None


def test_a_shape_without_guidance_changes_nothing(parse):
    assert settings_of(parse('--guidance-shape', 'cosine'), None) == settings_of(parse(), None)
