# Copyright (c) addp_mm contributors. Apache-2.0.
"""Mixed precision on the CPU, and unchanged on an accelerator."""

import pytest
import torch

import addp_mm  # noqa: F401

needs_cpu_only = pytest.mark.skipif(torch.cuda.is_available(), reason='shows what happens without an accelerator')


@needs_cpu_only
def test_amp_trains_in_bfloat16_on_the_cpu():
    from mmengine.optim import AmpOptimWrapper

    model = torch.nn.Linear(4, 4)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with pytest.raises(AssertionError, match='only available'):
        AmpOptimWrapper.__init__.__wrapped__(object.__new__(AmpOptimWrapper), optimizer=optimizer)
    wrapper = AmpOptimWrapper(optimizer=optimizer, dtype='bfloat16', clip_grad=dict(max_norm=1.0))
    before = model.weight.clone()
    with wrapper.optim_context(model):
        out = model(torch.ones(2, 4))
        assert out.dtype == torch.bfloat16
        loss = out.float().square().mean()
    wrapper.update_params(loss)
    assert not torch.equal(model.weight, before)
    assert model.weight.dtype == torch.float32
    wrapper.load_state_dict(wrapper.state_dict())


@needs_cpu_only
def test_amp_in_float16_on_the_cpu_scales_the_loss():
    from mmengine.optim import AmpOptimWrapper

    model = torch.nn.Linear(4, 4)
    torch.nn.init.zeros_(model.weight)
    optimizer = torch.optim.SGD(model.parameters(), lr=1.0)
    wrapper = AmpOptimWrapper(optimizer=optimizer, dtype='float16', loss_scale=dict(init_scale=2.0**16))
    tiny = 1e-8  # 0 in float16 without a scale
    with wrapper.optim_context(model):
        out = model(torch.ones(2, 4))
        assert out.dtype == torch.float16
        loss = out.float().sum() * tiny
    wrapper.update_params(loss)
    # the gradient of each weight is 2 * tiny
    torch.testing.assert_close(model.weight, torch.full((4, 4), -2 * tiny), rtol=2e-3, atol=0)
    assert wrapper.state_dict()['loss_scaler']['scale'] == 2.0**16
    wrapper.load_state_dict(wrapper.state_dict())


@needs_cpu_only
def test_amp_refuses_other_types_on_the_cpu():
    from mmengine.optim import AmpOptimWrapper

    with pytest.raises(ValueError, match="dtype='bfloat16'"):
        AmpOptimWrapper(optimizer=torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1), dtype='float64')


def test_amp_on_an_accelerator_is_the_original(monkeypatch):
    from mmengine.optim.optimizer import amp_optimizer_wrapper as module

    monkeypatch.setattr('addp_mm.compat.amp.device_kind', lambda: 'cuda')
    monkeypatch.setattr(module, 'is_cuda_available', lambda: True)
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1)
    wrapper = module.AmpOptimWrapper(optimizer=optimizer, dtype='float16', loss_scale=64.0)
    assert wrapper.cast_dtype == torch.float16
    assert wrapper._scale_update_param == 64.0
    assert wrapper.loss_scaler._device == 'cuda'
