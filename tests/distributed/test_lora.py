# Copyright (c) addp_mm contributors. Apache-2.0.
"""LoRA adapters learn the same on one process and under DDP, and their checkpoint is merged."""

import importlib
import runpy
from pathlib import Path

import pytest
import torch
from helpers.comparing import assert_equal
from mmengine.registry import DefaultScope
from safetensors.torch import load_file

from addp_mm.models.layers.lora_weights import is_adapter
from addp_mm.registry import MODELS

pytestmark = pytest.mark.slow
EXPORT = Path(__file__).parents[2] / 'tools/model_converters/export_weights.py'


@pytest.fixture(scope='module')
def runs(run_jobs):
    return run_jobs('lora')


# 'cp' recomputes activations. DDP looks for no unused parameters: one without a gradient would be
# an error of the second step.
@pytest.mark.parametrize('name', ['timm', 'cp'])
def test_only_adapters_and_the_head_are_trained_as_on_one_process(runs, name):
    one = runs[f'{name}_one_0']
    for rank in range(2):
        two = runs[f'{name}_two_{rank}']
        for expected, found in zip(one['gradients'], two['gradients'], strict=True):
            assert_equal(expected, found)
        assert_equal(one['weights'], two['weights'])
    trained = set(one['gradients'][0])
    assert trained == {key for key in one['weights'] if is_adapter(key) or key.startswith('head.')}
    assert sum(map(is_adapter, trained)) == 2 * 2 * 2
    assert all(gradient.any() for gradient in one['gradients'][-1].values())
    assert_equal(runs[f'{name}_two_0']['weights'], runs[f'{name}_two_1']['weights'], atol=0)


@pytest.mark.parametrize('name', ['timm', 'cp'])
def test_the_checkpoint_is_exported_merged(runs, run_jobs, name):
    helper = importlib.import_module('helpers.lora_jobs')
    path, out = run_jobs.folder / f'{name}_two/iter_3.pth', run_jobs.folder / f'{name}.safetensors'
    runpy.run_path(str(EXPORT))['main']([str(path), str(out)])
    with DefaultScope.overwrite_default_scope('mmpretrain'):
        adapted, plain = (MODELS.build(helper.classifier(name, lora)) for lora in (helper.LORA, None))
    adapted.load_state_dict(torch.load(path, weights_only=False)['state_dict'])
    plain.load_state_dict(load_file(out))
    image = torch.rand(2, 3, 32, 32)
    with torch.no_grad():
        torch.testing.assert_close(plain.eval()(image), adapted.eval()(image), rtol=0, atol=1e-5)
    own = adapted.state_dict()
    changed = {key for key, value in plain.state_dict().items() if not torch.equal(value, own[key])}
    assert len(changed) == 2 * 2  # qkv and fc1 of two blocks
