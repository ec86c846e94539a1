# Copyright (c) addp_mm contributors. Apache-2.0.
"""Moving averages in one call equal those weight by weight."""

import pytest
import torch
from mmengine.model import ExponentialMovingAverage, MomentumAnnealingEMA
from torch import nn

import addp_mm  # noqa: F401
from addp_mm.compat.averaged_model import _average


def model():
    torch.manual_seed(0)
    parts = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Linear(4, 2))
    parts[2].to(torch.bfloat16)
    parts.register_buffer('count', torch.tensor([3, 4]))
    return parts


def change(module, step):
    generator = torch.Generator().manual_seed(step)
    for value in module.state_dict().values():
        if value.is_floating_point():
            value.add_(torch.randn(value.shape, generator=generator).to(value.dtype))
        else:
            value.add_(1)


@pytest.mark.parametrize('update_buffers', [False, True])
@pytest.mark.parametrize('kind', [ExponentialMovingAverage, MomentumAnnealingEMA])
@pytest.mark.parametrize('interval', [1, 2])
def test_averages_equal_those_weight_by_weight(kind, update_buffers, interval):
    source = model()
    options = dict(momentum=0.3, interval=interval, update_buffers=update_buffers)
    plain, fast = kind(source, **options), kind(source, **options)
    for step in range(5):
        change(source, step)
        ExponentialMovingAverage.update_parameters.__wrapped__(plain, source)
        fast.update_parameters(source)
    assert fast.steps == 5
    for name, value in plain.state_dict().items():
        torch.testing.assert_close(fast.state_dict()[name], value, rtol=1e-6, atol=1e-6)
    assert (fast.module[0].weight - source[0].weight).abs().max() > 0.01
    # integers: those of the model, or with update_buffers those of the first update
    assert fast.module.count.tolist() == ([4, 5] if update_buffers else [8, 9])


def test_weights_of_a_type_are_averaged_in_one_call(monkeypatch):
    calls = []
    lerp = torch._foreach_lerp_
    monkeypatch.setattr(torch, '_foreach_lerp_', lambda *args: calls.append(len(args[0])) or lerp(*args))
    source = model()
    average = ExponentialMovingAverage(source, momentum=0.3)
    average.update_parameters(source)
    assert calls == []
    average.update_parameters(source)
    assert calls == [4, 2]  # float32 and bfloat16


def test_a_shared_weight_moves_once_for_each_name():
    first, second = torch.zeros(3), torch.zeros(2)
    _average([(first, torch.ones(3)), (second, torch.ones(2)), (first, torch.ones(3))], 0.5)
    assert torch.equal(first, torch.full((3,), 0.75))
    assert torch.equal(second, torch.full((2,), 0.5))
