# Copyright (c) addp_mm contributors. Apache-2.0.
"""Previews of a training with averaged weights show what its checkpoints contain."""

import cv2
import numpy as np
import pytest
import torch
from helpers.tiny_addp import MODEL, build_model
from helpers.tiny_pretraining import build_runner
from helpers.tiny_training import build_runner as build_tiny
from mmengine.hooks import EMAHook
from mmengine.registry import DefaultScope

from addp_mm.engine.averages import averaged_weights
from addp_mm.engine.hooks.previews import evaluating
from addp_mm.generation import AlternatingSampler, SamplingSchedule, figures
from addp_mm.randomness import Purpose, torch_generator
from addp_mm.registry import MODELS

AVERAGE = dict(type='EMAHook', momentum=0.3)


def weights(path):
    return torch.load(path, weights_only=False)['state_dict']


def image(path):
    return cv2.imread(str(path))[..., ::-1]


@pytest.mark.parametrize('hook', [AVERAGE, dict(AVERAGE, begin_iter=3), dict(AVERAGE, update_buffers=True), None])
@pytest.mark.parametrize('first', [True, False])
def test_generated_images_are_those_of_the_checkpoint(tmp_path, hook, first):
    preview = dict(
        type='addp_mm.GenerativePretrainHook', preview_interval=2, preview_images=2, sampler=dict(num_steps=2)
    )
    hooks = [preview, hook] if first else [hook, preview]
    runner = build_runner(
        tmp_path, custom_hooks=[one for one in hooks if one], max_iters=4, model=build_model(), checkpoint_interval=2
    )
    runner.train()
    model = runner.model
    raw = {name: value.clone() for name, value in model.state_dict().items()}

    def drawn(state):
        model.load_state_dict(state)
        with evaluating(model):
            sampler = AlternatingSampler(model, model.latent_size, SamplingSchedule(2))
            samples = sampler.run(2, torch_generator(runner.seed, Purpose.PREVIEW))
        return figures.image_grid(list(figures.to_uint8(samples.images)))

    for step in (2, 4):
        (path,) = tmp_path.rglob(f'generated_{step}.png')
        assert np.array_equal(image(path), drawn(weights(tmp_path / f'iter_{step}.pth')))
    if hook in (AVERAGE, None):
        assert np.array_equal(image(path), drawn(raw)) == (hook is None)


def test_reconstructions_are_those_of_the_checkpoint(tmp_path):
    with DefaultScope.overwrite_default_scope('mmpretrain'):
        model = MODELS.build(
            dict(
                type='addp_mm.TokenizerPretrain',
                tokenizer=MODEL['tokenizer'],
                data_preprocessor=MODEL['data_preprocessor'],
            )
        )
    preview = dict(type='addp_mm.ReconstructionPreviewHook', interval=2, num_images=2, side=16)
    runner = build_runner(tmp_path, custom_hooks=[preview, AVERAGE], max_iters=4, model=model)
    runner.train()
    raw = {name: value.clone() for name, value in model.state_dict().items()}
    shown = next(hook for hook in runner.hooks if type(hook).__name__ == 'ReconstructionPreviewHook').images

    def drawn(state):
        model.load_state_dict(state)
        with evaluating(model):
            again = model.reconstruct(shown)
        tiles = [figures.enlarge(one, 16) for row in (shown, again) for one in figures.to_uint8(row)]
        return figures.image_grid(tiles, columns=2)

    (path,) = tmp_path.rglob('reconstructions_4.png')
    assert np.array_equal(image(path), drawn(weights(tmp_path / 'iter_4.pth')))
    assert not np.array_equal(image(path), drawn(raw))


def test_the_weights_of_the_training_come_back_exactly(tmp_path):
    runner = build_tiny(tmp_path, 3, custom_hooks=[dict(AVERAGE)])
    runner.train()
    average = next(hook for hook in runner.hooks if isinstance(hook, EMAHook)).ema_model.module
    before = [one.clone() for one in runner.model.parameters()]
    averages = [one.clone() for one in average.parameters()]

    def used():
        with averaged_weights(runner):
            assert all(map(torch.equal, runner.model.parameters(), averages))
            raise RuntimeError('in between')

    with pytest.raises(RuntimeError, match='in between'):
        used()
    assert all(map(torch.equal, runner.model.parameters(), before))
    assert all(map(torch.equal, average.parameters(), averages))
    assert not torch.equal(before[0], averages[0])


def test_mmpretrains_hook_that_validates_raw_weights_draws_averages_too(tmp_path):
    from mmpretrain.engine import EMAHook as PretrainEMAHook

    hook = PretrainEMAHook(momentum=0.3, evaluate_on_ema=False, evaluate_on_origin=True)
    runner = build_tiny(tmp_path, 3, hooks=(hook,))
    runner.train()
    averages = [one.clone() for one in hook.ema_model.module.parameters()]
    with averaged_weights(runner):
        assert all(map(torch.equal, runner.model.parameters(), averages))
