# Copyright (c) addp_mm contributors. Apache-2.0.
"""tools/analysis_tools/frechet_distance.py checks its options before it computes features."""

import runpy
from pathlib import Path

import pytest

TOOL = Path(__file__).parents[2] / 'tools/analysis_tools/frechet_distance.py'


@pytest.mark.parametrize(
    'options, words',
    [
        (['--out', '.'], 'error: --out . is a folder'),
        (['--out', '/proc/x.npz'], 'no file can be written in /proc'),
        (['--out', 'x.npz', '--device', 'foo'], 'error: --device foo: this PyTorch cannot use the device here'),
    ],
)
def test_wrong_options_are_refused_before_the_extractor_is_built(tmp_path, options, words):
    with pytest.raises(SystemExit, match=words):
        runpy.run_path(str(TOOL))['main']([str(tmp_path), '--extractor', 'no_such_config.py', *options])


@pytest.mark.parametrize('old, new', [('--save', '--out'), ('--image-size', '--img-size')])
def test_renamed_options_are_refused(capsys, old, new):
    with pytest.raises(SystemExit):
        runpy.run_path(str(TOOL))['parse_args'](['a', 'b', old, '3'])
    assert f'{old} was renamed: use {new}' in capsys.readouterr().err
