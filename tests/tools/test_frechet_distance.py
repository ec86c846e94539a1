# Copyright (c) addp_mm contributors. Apache-2.0.
"""tools/analysis_tools/frechet_distance.py looks at its options before it computes features."""

import runpy
from pathlib import Path

import pytest

TOOL = Path(__file__).parents[2] / 'tools/analysis_tools/frechet_distance.py'


@pytest.mark.parametrize(
    'options, words',
    [
        (['--save', '.'], 'error: --save . is a folder'),
        (['--save', '/proc/x.npz'], 'no file can be written in /proc'),
        (['--save', 'x.npz', '--device', 'foo'], 'error: --device foo is no device'),
    ],
)
def test_what_cannot_be_is_refused_before_the_extractor_is_built(tmp_path, options, words):
    with pytest.raises(SystemExit, match=words):
        runpy.run_path(str(TOOL))['main']([str(tmp_path), '--extractor', 'no_such_config.py', *options])
