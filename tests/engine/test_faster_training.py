# Copyright (c) addp_mm contributors. Apache-2.0.
"""Accumulation, bfloat16, compilation and activation checkpointing keep a step's result."""

import shutil

import pytest
import torch
from helpers.tiny_addp import MODEL
from helpers.tiny_pretraining import SeededNoise, build_runner
from mmengine.optim import OptimWrapper
from mmengine.registry import DefaultScope

from addp_mm.diffusion import NoiseDraw, NoiseSchedule
from addp_mm.models.backbones import ADDPViT
from addp_mm.models.selfsup import addp, mark_loaded
from addp_mm.registry import MODELS

needs_compiler = pytest.mark.skipif(
    not (shutil.which('g++') or shutil.which('clang++')), reason='torch.compile needs a C++ compiler'
)
SGD = dict(type='OptimWrapper', optimizer=dict(type='SGD', lr=0.1, momentum=0.9), clip_grad=dict(max_norm=0.5))


def plain_model():
    """ADDP without dropout: the same step twice gives the same numbers."""
    settings = dict(MODEL, neck=dict(MODEL['neck'], drop_rate=0.0))
    with torch.random.fork_rng(), DefaultScope.overwrite_default_scope('mmpretrain'):
        torch.manual_seed(0)
        model = MODELS.build(settings)
        for parameter in model.parameters():
            parameter.data.add_(torch.randn_like(parameter), alpha=0.3)
    mark_loaded(model.tokenizer)
    mark_loaded(model.predictor)
    return model


def weights(model) -> dict:
    return {name: value.detach().clone() for name, value in model.named_parameters() if value.requires_grad}


def assert_close(first: dict, second: dict, atol: float = 1e-5) -> None:
    for name, value in first.items():
        torch.testing.assert_close(value, second[name], rtol=0, atol=atol)


def noise() -> NoiseDraw:
    return NoiseDraw(NoiseSchedule().level(20, 40), torch.Generator().manual_seed(1))


def test_accumulated_steps_equal_those_of_the_whole_batch(monkeypatch):
    """Two optimizer steps of 8 images, at once and as 4 passes of 2 each."""
    images = SeededNoise(16).images
    whole, parts = plain_model().train(), plain_model().train()
    wrappers = [
        OptimWrapper(torch.optim.SGD(model.parameters(), lr=0.5, momentum=0.9), counts, clip_grad=dict(max_norm=0.5))
        for model, counts in ((whole, 1), (parts, 4))
    ]
    start = weights(whole)
    rows = slice(0, 8)
    nested_masks = addp.nested_masks
    monkeypatch.setattr(
        addp,
        'nested_masks',
        lambda tokens, level, count, generator, device=None: tuple(
            mask[rows] for mask in nested_masks(tokens, level, 8, generator, device)
        ),
    )
    for step in range(2):
        batch, rows = images[8 * step : 8 * step + 8], slice(0, 8)
        torch.manual_seed(step)
        whole.train_step(dict(inputs=batch, data_samples=None), wrappers[0])
        for part in range(4):
            rows = slice(2 * part, 2 * part + 2)
            torch.manual_seed(step)
            parts.train_step(dict(inputs=batch[rows], data_samples=None), wrappers[1])
    assert max((value - start[name]).abs().max() for name, value in weights(whole).items()) > 1e-2
    assert_close(weights(whole), weights(parts))


@pytest.mark.slow
def test_pretraining_in_bfloat16_stays_near_float32(tmp_path):
    low = dict(SGD, type='AmpOptimWrapper', dtype='bfloat16', loss_scale=dict(enabled=False))
    models = []
    for name, wrapper in (('float32', SGD), ('bfloat16', low)):
        runner = build_runner(tmp_path / name, model=plain_model(), max_iters=3)
        runner.optim_wrapper = wrapper
        runner.train()
        models.append(runner.model)
    start, full, half = weights(plain_model()), *map(weights, models)
    moved = sum((full[name] - start[name]).square().sum() for name in full).sqrt()
    apart = sum((full[name] - half[name]).square().sum() for name in full).sqrt()
    assert 0 < apart < 0.1 * moved
    assert {value.dtype for value in models[1].parameters()} == {torch.float32}


@pytest.mark.slow
def test_checkpointed_activations_do_not_change_gradients(tmp_path):
    """``with_cp`` for the backbone, the Runner's ``activation_checkpointing`` for the neck."""
    from mmengine.runner.activation_checkpointing import turn_on_activation_checkpointing

    images = SeededNoise(4).images / 255.0
    gradients = []
    for checkpointed in (False, True):
        model = plain_model().train()
        if checkpointed:
            model.backbone.with_cp = True
            turn_on_activation_checkpointing(model, ['neck'])
        model.loss(images, noise=noise())['loss'].backward()
        gradients.append({name: value.grad for name, value in model.named_parameters() if value.requires_grad})
    assert_close(*gradients, atol=1e-6)


@pytest.mark.slow
@needs_compiler
def test_a_compiled_backbone_gives_the_same_features_and_gradients():
    model = ADDPViT(dict(embed_dims=16, num_layers=2, num_heads=2), 16, 4, out_type='featmap')
    images = torch.rand(2, 3, 16, 16)
    results = []
    for forward in (model, torch.compile(model)):
        model.zero_grad()
        (features,) = forward(images)
        features.square().sum().backward()
        results.append(
            dict(
                {name: value.grad.clone() for name, value in model.named_parameters() if value.grad is not None},
                features=features.detach(),
            )
        )
    assert_close(*results, atol=1e-4)
    assert len(results[0]) > 20


@pytest.mark.slow
def test_the_compile_key_compiles_the_training_step(tmp_path):
    """Traced, but run by the usual kernels, so that no compiler is needed."""
    runs = []
    for compiled in (False, True):
        runner = build_runner(tmp_path / str(compiled), model=plain_model(), max_iters=1)
        runner.optim_wrapper = SGD
        if compiled:
            runner.cfg.compile = dict(backend='eager', dynamic=True)
        runner.train()
        runs.append((runner.model, weights(runner.model)))
    (plain, expected), (model, found) = runs
    assert hasattr(model.train_step, '_torchdynamo_orig_callable')
    assert 'train_step' not in vars(plain)
    assert_close(expected, found)
