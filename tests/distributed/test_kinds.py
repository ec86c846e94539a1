# Copyright (c) addp_mm contributors. Apache-2.0.
"""A step gives each trained parameter a gradient; no config looks for unused parameters."""

from pathlib import Path

import pytest
from helpers.comparing import assert_equal

ROOT = Path(__file__).parents[2]


def test_no_config_looks_for_unused_parameters():
    files = [path for folder in ('configs', 'addp_mm', 'tools') for path in (ROOT / folder).rglob('*.py')]
    asking = [path for path in files if 'find_unused_parameters=True' in path.read_text().replace(' ', '')]
    assert len(files) > 50
    assert asking == []


@pytest.mark.slow
def test_every_kind_of_model_trains_without_looking_for_unused_parameters(run_jobs):
    runs = run_jobs('kinds')
    assert len(runs) == 12
    for kind in ('tokenizer', 'predictor', 'addp', 'classify', 'detect', 'segment'):
        first, second = (runs[f'{kind}_{rank}'] for rank in range(2))
        assert not first['unused'], kind
        assert first['moved'] > 0.8, kind
        # each rank had other images: without averaged gradients the weights would differ
        assert_equal(first['weights'], second['weights'], atol=0)
