# Copyright (c) addp_mm contributors. Apache-2.0.
"""Fused optimizer steps give the weights of plain ones, also after a resume from any checkpoint."""

import copy

import pytest
import torch
from mmengine.optim import OptimWrapper, build_optim_wrapper
from mmengine.registry import MODELS, DefaultScope
from torch import nn

import addp_mm  # noqa: F401

ADAMW = dict(type='AdamW', lr=0.01, betas=[0.9, 0.95], weight_decay=0.3)
KINDS = (
    ADAMW,
    dict(type='Adam', lr=0.01, weight_decay=0.3, amsgrad=True),
    dict(type='SGD', lr=0.1, momentum=0.9, weight_decay=0.3, nesterov=True),
)
PLAIN = dict(foreach=False, fused=False)
GROUPS = dict(bias_decay_mult=0.0, custom_keys={'2.weight': dict(lr_mult=0.5)})
LAYER_DECAY = dict(
    constructor='addp_mm.LayerDecayOptimWrapperConstructor',
    paramwise_cfg=dict(layer_decay_rate=0.5, norm_decay_mult=0.0, bias_decay_mult=0.0),
)


def mlp():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(5, 7), nn.GELU(), nn.Linear(7, 7), nn.GELU(), nn.Linear(7, 3))


def vit():
    backbone = dict(
        type='addp_mm.ADDPViT',
        arch=dict(embed_dims=16, num_layers=3, num_heads=2),
        img_size=16,
        patch_size=8,
        out_type='avg_featmap',
    )
    torch.manual_seed(0)
    with DefaultScope.overwrite_default_scope('mmpretrain'):
        head = dict(type='LinearClsHead', num_classes=3, in_channels=16)
        return MODELS.build(dict(type='ImageClassifier', backbone=backbone, head=head))


def wrapper_of(model, optimizer, **cfg):
    return build_optim_wrapper(model, dict(type='OptimWrapper', optimizer=optimizer, **cfg))


def train(model, wrapper, steps, start=0):
    """Steps with random gradients; the learning rate changes as with a schedule."""
    for step in range(start, start + steps):
        generator = torch.Generator().manual_seed(step)
        for group in wrapper.optimizer.param_groups:
            group['lr'] *= 0.9
        for parameter in model.parameters():
            parameter.grad = torch.randn(parameter.shape, generator=generator)
        wrapper.step()


def assert_same_weights(first, second, **tolerance):
    for name, value in first.state_dict().items():
        torch.testing.assert_close(
            value, second.state_dict()[name], msg=lambda text, name=name: f'{name}: {text}', **tolerance
        )


@pytest.mark.parametrize('optimizer', KINDS, ids=lambda optimizer: optimizer['type'])
@pytest.mark.parametrize(
    'make, cfg', [(mlp, dict(paramwise_cfg=GROUPS)), (vit, LAYER_DECAY)], ids=['groups', 'layer_decay']
)
def test_weights_equal_those_of_the_plain_optimizer(make, cfg, optimizer):
    plain, fused = make(), make()
    wrappers = [
        wrapper_of(plain, dict(optimizer, **PLAIN), **copy.deepcopy(cfg)),
        wrapper_of(fused, dict(optimizer), **copy.deepcopy(cfg)),
    ]
    assert {group['fused'] for group in wrappers[0].optimizer.param_groups} == {False}
    assert {group['fused'] for group in wrappers[1].optimizer.param_groups} == {True}
    start = copy.deepcopy(plain)
    train(plain, wrappers[0], 5)
    train(fused, wrappers[1], 5)
    assert_same_weights(plain, fused, rtol=1e-5, atol=1e-6)
    for name, value in start.named_parameters():
        assert (value - dict(fused.named_parameters())[name]).abs().max() > 1e-3


def test_groups_of_the_same_settings_step_in_one_call(monkeypatch):
    calls = []
    fused = torch._fused_adamw_
    monkeypatch.setattr(
        torch, '_fused_adamw_', lambda *args, **kwargs: calls.append(len(args[0])) or fused(*args, **kwargs)
    )
    model = mlp()
    wrapper = wrapper_of(model, ADAMW, paramwise_cfg=GROUPS)
    assert len(wrapper.optimizer.param_groups) == 6
    groups = wrapper.optimizer.param_groups
    train(model, wrapper, 1)
    assert sorted(calls) == [1, 2, 3]  # the weight of its own rate, two other weights, three biases
    assert wrapper.optimizer.param_groups is groups
    assert [len(group['params']) for group in groups] == [1] * 6


def test_a_failed_step_leaves_the_groups_as_they_were(monkeypatch):
    model = mlp()
    wrapper = wrapper_of(model, ADAMW, paramwise_cfg=GROUPS)
    groups = wrapper.optimizer.param_groups
    seen = []

    def fail(*args, **kwargs):
        seen.append(len(wrapper.optimizer.param_groups))
        raise RuntimeError('out of memory')

    monkeypatch.setattr(torch, '_fused_adamw_', fail)
    with pytest.raises(RuntimeError, match='out of memory'):
        wrapper.update_params(model(torch.rand(2, 5)).sum())
    assert seen == [3]
    assert wrapper.optimizer.param_groups is groups


def test_a_second_wrapper_of_an_optimizer_changes_nothing():
    model = mlp()
    optimizer = torch.optim.AdamW([dict(params=[parameter]) for parameter in model.parameters()])
    wrappers = OptimWrapper(optimizer), OptimWrapper(optimizer)
    groups = optimizer.param_groups
    wrappers[1].update_params(model(torch.rand(2, 5)).sum())
    assert optimizer.param_groups is groups
    assert len(groups) == 6


@pytest.mark.parametrize('settings', [dict(momentum=0.9), {}], ids=['momentum', 'plain'])
@pytest.mark.parametrize('grouped', [True, False])
def test_sgd_takes_gradients_that_begin_later(settings, grouped):
    results = []
    for options in (PLAIN, {}):
        parameters = [nn.Parameter(torch.full((3,), 2.0)) for _ in range(2)]
        groups = [dict(params=[one]) for one in parameters] if grouped else parameters
        wrapper = OptimWrapper(torch.optim.SGD(groups, lr=0.1, **settings, **options))
        for step in range(3):
            parameters[0].grad = torch.arange(3.0)
            parameters[1].grad = torch.ones(3) if step else None
            wrapper.step()
        results.append([one.detach() for one in parameters])
    torch.testing.assert_close(*results)


@pytest.mark.parametrize('kind', [torch.optim.AdamW, torch.optim.SGD])
def test_a_gradient_of_another_memory_order_is_read_in_its_own(kind):
    results = []
    for options in (PLAIN, {}):
        torch.manual_seed(0)
        weights = torch.rand(2, 3, 4, 4).contiguous(memory_format=torch.channels_last)
        parameters = [nn.Parameter(weights), nn.Parameter(torch.rand(3, 2).t()), nn.Parameter(torch.rand(4, 6)[:, ::2])]
        wrapper = OptimWrapper(kind(parameters, lr=0.1, **options))
        for _ in range(2):
            for parameter in parameters:
                parameter.grad = torch.rand(parameter.shape)
            wrapper.step()
        results.append([one.detach() for one in parameters])
    torch.testing.assert_close(*results)


@pytest.mark.parametrize('kind', KINDS)
def test_the_strides_of_a_gradient_do_not_change_the_weights(kind):
    # else the weights of two processes drift apart: each has its own images
    def trained(arrange):
        generator = torch.Generator().manual_seed(0)
        shapes = (16, 64, 1, 1), (8, 4, 3, 3), (300, 300)
        parameters = [nn.Parameter(torch.rand(shape, generator=generator)) for shape in shapes]
        model = nn.ParameterList(parameters)
        wrapper = wrapper_of(model, kind)
        for _ in range(5):
            for parameter in parameters:
                parameter.grad = arrange(torch.randn(parameter.shape, generator=generator))
            wrapper.step()
        return parameters

    def other_strides(gradient):
        if gradient.dim() != 4:
            return gradient
        if gradient.shape[2:] == (1, 1):  # as a convolution of 8 x 8 positions returns it
            return gradient.as_strided(gradient.shape, (64, 1, 64, 64))
        return gradient.contiguous(memory_format=torch.channels_last)

    for expected, found in zip(trained(lambda gradient: gradient), trained(other_strides), strict=True):
        assert torch.equal(expected, found)


def test_the_kernel_of_a_group_is_saved_as_it_was_given():
    first, second = nn.Parameter(torch.ones(2)), nn.Parameter(torch.ones(2))
    wrapper = OptimWrapper(torch.optim.AdamW([dict(params=[first], fused=True), dict(params=[second])]))
    assert [group['fused'] for group in wrapper.optimizer.param_groups] == [True, True]
    assert [group['fused'] for group in wrapper.state_dict()['param_groups']] == [True, None]


@pytest.mark.parametrize('given', [dict(fused=False), dict(fused=True), dict(foreach=True), dict(foreach=False), PLAIN])
def test_the_kernel_of_the_config_is_kept(given):
    model = mlp()
    wrapper = wrapper_of(model, dict(ADAMW, **given), paramwise_cfg=GROUPS)
    kept = {'foreach': None, 'fused': None, **given}
    train(model, wrapper, 1)
    for groups in (wrapper.optimizer.param_groups, wrapper.state_dict()['param_groups']):
        assert all({key: group[key] for key in kept} == kept for group in groups)
    other = wrapper_of(mlp(), dict(ADAMW, fused=True), paramwise_cfg=GROUPS)
    wrapper.load_state_dict(other.state_dict())
    assert all({key: group[key] for key in kept} == kept for group in wrapper.optimizer.param_groups)


def test_other_optimizers_types_and_options_are_not_changed():
    class OwnAdamW(torch.optim.AdamW):
        """Its step could be another one."""

    parameter = nn.Parameter(torch.ones(2))
    for optimizer in (OwnAdamW([parameter]), torch.optim.RAdam([parameter])):
        assert not OptimWrapper(optimizer).optimizer.param_groups[0].get('fused')
    assert OptimWrapper(torch.optim.Adam([parameter], differentiable=True)).optimizer.param_groups[0]['fused'] is None
    complex_one = nn.Parameter(torch.ones(2, dtype=torch.complex64))
    wrapper = OptimWrapper(torch.optim.Adam([dict(params=[complex_one]), dict(params=[parameter])]))
    assert [group['fused'] for group in wrapper.optimizer.param_groups] == [None, True]
    complex_one.grad = torch.ones_like(complex_one)
    parameter.grad = torch.ones_like(parameter)
    wrapper.step()
    assert (parameter < 1).all()


@pytest.mark.parametrize('saved_by', [PLAIN, dict(foreach=True), dict(fused=True), {}], ids=str)
def test_a_resumed_training_equals_one_without_a_stop(saved_by):
    whole, first, second = mlp(), mlp(), mlp()
    wrapper = wrapper_of(whole, ADAMW, paramwise_cfg=GROUPS)
    train(whole, wrapper, 6)

    wrapper = wrapper_of(first, dict(ADAMW, **saved_by), paramwise_cfg=GROUPS)
    train(first, wrapper, 3)
    saved = copy.deepcopy((first.state_dict(), wrapper.state_dict()))
    wrapper = wrapper_of(second, ADAMW, paramwise_cfg=GROUPS)
    second.load_state_dict(saved[0])
    wrapper.load_state_dict(saved[1])
    assert all(group['fused'] for group in wrapper.optimizer.param_groups)
    train(second, wrapper, 3, start=3)
    exact = saved_by.get('fused') is not False and 'foreach' not in saved_by
    assert_same_weights(whole, second, **(dict(rtol=0, atol=0) if exact else dict(rtol=1e-5, atol=1e-6)))


def test_a_checkpoint_has_no_trace_of_the_fused_kernel():
    model = mlp()
    wrapper = wrapper_of(model, ADAMW, paramwise_cfg=GROUPS)
    train(model, wrapper, 2)
    saved = wrapper.state_dict()
    assert [(group['fused'], len(group['params'])) for group in saved['param_groups']] == [(None, 1)] * 6
    assert wrapper.optimizer.param_groups[0]['fused'] is True
    torch.optim.AdamW([dict(params=[parameter]) for parameter in mlp().parameters()]).load_state_dict(saved)


@pytest.mark.parametrize('given', [{}, dict(fused=False)])
def test_sgd_takes_sparse_gradients(given):
    model = nn.ModuleList([nn.Embedding(4, 2, sparse=True), nn.Linear(2, 1)])
    nn.init.ones_(model[0].weight)
    wrapper = wrapper_of(
        model, dict(type='SGD', lr=0.1, weight_decay=0.0, **given), paramwise_cfg=dict(bias_decay_mult=0.0)
    )
    model[1](model[0](torch.tensor([1]))).sum().backward()
    assert model[0].weight.grad.is_sparse
    wrapper.step()
    assert (model[0].weight != 1).any(1).tolist() == [False, True, False, False]


@pytest.mark.parametrize('given', [{}, dict(fused=True)])
def test_a_loss_scale_skips_a_step_with_infinite_gradients(given):
    plain, fused = mlp(), mlp()
    inputs = torch.rand(2, 5)
    for model, options in ((plain, PLAIN), (fused, given)):
        cfg = dict(type='AmpOptimWrapper', dtype='float16', optimizer=dict(ADAMW, **options), paramwise_cfg=GROUPS)
        wrapper = build_optim_wrapper(model, cfg)
        before = copy.deepcopy(model)
        for factor in (float('inf'), 1.0, 1.0):
            # without autocast, so that only the scale is in the gradients
            wrapper.update_params(model(inputs).square().mean() * factor)
            if factor != 1:
                assert_same_weights(before, model, rtol=0, atol=0)
    assert_same_weights(plain, fused, rtol=1e-5, atol=1e-6)
