# Copyright (c) addp_mm contributors. Apache-2.0.
"""The record of the options that addp generate and addp inpaint share."""

import pytest
from torch import nn

from addp_mm.cli_options import ToolParser
from addp_mm.sampling_options import add_sampling_options, settings_of

MODEL = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))


@pytest.fixture
def parse():
    parser = ToolParser()
    parser.add_argument('config')
    parser.add_argument('checkpoint')
    add_sampling_options(parser)
    return lambda *options: parser.parse_args(['configs/nano.py', 'addp.pth', *options])


def test_every_shared_option_is_recorded(parse):
    args = parse('--classes', 'all', '--guidance', '2', '--guidance-shape', 'linear')
    options = vars(args)
    del options['checkpoint']
    recorded = settings_of(args, MODEL, [0, 1, 2])
    del recorded['weights']
    assert recorded == {**options, 'config': 'nano.py', 'classes': 'all'}
    assert settings_of(parse('--classes', '2', 'dress'), MODEL, [2, 0])['classes'] == [2, 0]
    assert settings_of(parse(), MODEL, None)['classes'] is None


def test_weights_of_any_part_of_the_model_are_recorded(parse):
    # a tokenizer or predictor is not in the checkpoint of ADDP, but in the files of the config
    before = settings_of(parse(), MODEL, None)
    other = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))
    other.load_state_dict(MODEL.state_dict())
    assert settings_of(parse(), other, None) == before
    nn.init.zeros_(other[1].bias)
    assert settings_of(parse(), other, None) != before


def test_a_shape_without_guidance_changes_nothing(parse):
    assert settings_of(parse('--guidance-shape', 'cosine'), MODEL, None) == settings_of(parse(), MODEL, None)
