# Copyright (c) addp_mm contributors. Apache-2.0.
"""mmcv's layer of deformable attention calls the operator off CUDA, too."""

import inspect
from unittest import mock

import pytest
import torch
from helpers.modules import module_with

from addp_mm.compat.deformable_attention import patch_deformable_attention

SHAPES = torch.tensor([[6, 8], [3, 4]])


@pytest.fixture
def attention(mmcv_ops, monkeypatch):
    """``mmcv.ops.multi_scale_deform_attn`` with the patch, also if mmcv has compiled operators."""
    module = mmcv_ops.multi_scale_deform_attn
    name = 'multi_scale_deformable_attn_pytorch'
    monkeypatch.setattr(module, name, inspect.unwrap(getattr(module, name)))
    with mock.patch('addp_mm.compat.deformable_attention.patch_mmcv_ext', return_value=True):
        assert patch_deformable_attention(module)
    return module


def layer_and_inputs(attention, generator, dtype=torch.float64):
    torch.manual_seed(0)
    layer = attention.MultiScaleDeformableAttention(16, num_heads=2, num_levels=2, num_points=3, dropout=0).to(dtype)
    torch.nn.init.normal_(layer.sampling_offsets.weight, std=0.1)
    torch.nn.init.normal_(layer.attention_weights.weight)
    queries, values = (torch.randn(n, 2, 16, generator=generator).to(dtype) for n in (5, 60))
    where = torch.rand(2, 5, 2, 2, generator=generator).to(dtype)
    starts = torch.tensor([0, 48])
    return layer, queries, dict(value=values, reference_points=where, spatial_shapes=SHAPES, level_start_index=starts)


def run(layer, queries, inputs):
    layer.zero_grad()
    found = layer(queries, **inputs)
    found.float().square().sum().backward()
    return [found.detach(), *(weight.grad.clone() for weight in layer.parameters())]


def test_the_layer_has_the_values_and_gradients_of_mmcvs_function(attention, generator, monkeypatch):
    case = layer_and_inputs(attention, generator)
    with mock.patch.object(attention, 'ext_module', wraps=attention.ext_module) as operators:
        found = run(*case)
    assert operators.ms_deform_attn_forward.call_count == operators.ms_deform_attn_backward.call_count == 1
    name = 'multi_scale_deformable_attn_pytorch'
    monkeypatch.setattr(attention, name, inspect.unwrap(getattr(attention, name)))
    torch.testing.assert_close(found, run(*case))


@pytest.mark.parametrize('dtype', [torch.bfloat16, torch.float16])
def test_autocast_keeps_the_locations_exact(attention, generator, dtype):
    layer, queries, inputs = layer_and_inputs(attention, generator, torch.float32)
    expected = layer(queries, **inputs)
    with torch.autocast('cpu', dtype), mock.patch.object(attention, 'ext_module', wraps=attention.ext_module) as ops:
        found = layer(queries, **inputs)
    locations = ops.ms_deform_attn_forward.call_args.args[3]
    assert locations.dtype == torch.float32
    assert not torch.equal(locations, locations.to(dtype).float())
    torch.testing.assert_close(found.float(), expected, atol=0.1, rtol=0.05)


def test_while_a_model_is_compiled_or_has_no_values_mmcvs_function_stays(attention, generator, monkeypatch):
    layer, queries, inputs = layer_and_inputs(attention, generator)
    with mock.patch.object(attention, 'ext_module', None), monkeypatch.context() as patch:  # it would fail
        patch.setattr(torch.compiler, 'is_compiling', lambda: True)
        layer(queries, **inputs)
    attend = attention.multi_scale_deformable_attn_pytorch
    meta = (torch.zeros(s, device='meta') for s in ((2, 60, 2, 8), (2, 5, 2, 2, 3, 2), (2, 5, 2, 2, 3)))
    value, locations, weights = meta
    assert attend(value, SHAPES, locations, weights).shape == (2, 5, 16)


def test_compiled_operators_stay():
    class Compiled:
        __spec__ = None

    module = module_with(ext_module=Compiled, multi_scale_deformable_attn_pytorch=print)
    assert not patch_deformable_attention(module)
    assert module.multi_scale_deformable_attn_pytorch is print
