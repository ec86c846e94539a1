# Copyright (c) addp_mm contributors. Apache-2.0.
"""Launchers, mixed precision and the device of mmengine on kinds of devices that are not here."""

import os

import pytest
import torch
from helpers.modules import module_with

from addp_mm.compat import amp, device_kinds, distributed


@pytest.fixture
def trains_on(monkeypatch):
    """Makes mmengine's device one of this kind, where the patches ask for it."""

    def choose(kind):
        for module in (amp, distributed):
            monkeypatch.setattr(module, 'device_kind', lambda: kind)

    return choose


@pytest.fixture
def launcher():
    """A patched ``mmengine.dist.utils`` that records its calls."""
    module = module_with(torch=torch, calls=[])

    def init_dist(*args, **kwargs):
        module.calls.append((args, kwargs))
        module.calls.append((module.torch.cuda.set_device, module.torch.cuda.device_count()))

    module.init_dist = init_dist
    module.get_comm_device = lambda group=None: torch.device('cpu')
    module.get_backend = lambda group=None: 'xccl'
    distributed.patch_init_dist(module)
    return module


def test_on_cuda_the_original_starts_the_processes(launcher, trains_on):
    trains_on('cuda')
    launcher.init_dist('pytorch', 'nccl', timeout=3)
    assert launcher.calls[0] == (('pytorch', 'nccl'), dict(timeout=3))
    assert launcher.calls[1] == (torch.cuda.set_device, torch.cuda.device_count())


def test_processes_on_xpu_take_its_devices_and_backend(launcher, trains_on, monkeypatch):
    trains_on('xpu')
    monkeypatch.setattr(torch.accelerator, 'device_count', lambda: 3)
    monkeypatch.setattr(torch.accelerator, 'current_device_index', lambda: 2)
    monkeypatch.setitem(torch.distributed.Backend.default_device_backend_map, 'xpu', 'xccl')
    launcher.init_dist('pytorch', timeout=3)
    assert launcher.calls == [(('pytorch', 'xccl'), dict(timeout=3)), (torch.xpu.set_device, 3)]
    assert launcher.torch is torch
    assert launcher.get_comm_device() == torch.device('xpu', 2)
    launcher.get_backend = lambda group=None: 'gloo'
    assert launcher.get_comm_device() == torch.device('cpu')


def test_processes_on_the_cpu_use_gloo(launcher, trains_on):
    trains_on('cpu')
    launcher.init_dist('slurm')
    assert launcher.calls[0] == (('slurm', 'gloo'), {})
    assert launcher.calls[1][1] == os.cpu_count()


def test_a_device_without_a_backend_is_refused_but_small_objects_are_exchanged(launcher, trains_on, monkeypatch):
    trains_on('mps')
    monkeypatch.delitem(torch.distributed.Backend.default_device_backend_map, 'mps', raising=False)
    with pytest.raises(distributed.BackendError, match='between processes on mps: train in one process'):
        launcher.init_dist('pytorch')
    launcher.init_dist('pytorch', backend='gloo')
    assert launcher.calls[0] == (('pytorch', 'gloo'), {})


@pytest.mark.parametrize('kind, refused', [('cpu', True), ('mps', True), ('xpu', False), ('cuda', False)])
def test_sync_bn_is_refused_where_it_has_no_kernel(kind, refused, trains_on):
    trains_on(kind)
    module = module_with(convert_sync_batchnorm=lambda model, implementation: model)
    distributed.patch_sync_batchnorm(module)
    if refused:
        with pytest.raises(RuntimeError, match=f'has no {kind.upper()} kernel'):
            module.convert_sync_batchnorm('model')
    else:
        assert module.convert_sync_batchnorm('model') == 'model'


@pytest.mark.parametrize('kind', ['xpu', 'mps'])
@pytest.mark.parametrize('dtype', ['bfloat16', 'float16'])
def test_mixed_precision_has_the_scaler_and_autocast_of_the_device(kind, dtype, trains_on):
    from mmengine.optim import AmpOptimWrapper
    from mmengine.runner.amp import autocast

    trains_on(kind)
    wrapper = AmpOptimWrapper(optimizer=torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1), dtype=dtype)
    assert wrapper.loss_scaler.is_enabled() == (dtype == 'float16')
    if dtype == 'float16':
        assert wrapper.loss_scaler._device == kind
    with wrapper.optim_context(torch.nn.Linear(1, 1)):
        assert torch.is_autocast_enabled(kind)
        assert torch.get_autocast_dtype(kind) == getattr(torch, dtype)
        with autocast(enabled=False):
            assert not torch.is_autocast_enabled(kind)
    with pytest.raises(amp.PrecisionError, match=f'on {kind} mixed precision works in bfloat16 and float16'):
        AmpOptimWrapper(optimizer=wrapper.optimizer, dtype='float32')


@pytest.mark.parametrize('found, expected', [('xpu', 'xpu'), (None, 'cpu')])
def test_mmengine_gets_the_accelerator_of_torch(found, expected, monkeypatch):
    monkeypatch.setattr(torch.accelerator, 'is_available', lambda: found is not None)
    monkeypatch.setattr(torch.accelerator, 'current_accelerator', lambda: torch.device(found))
    module = module_with(DEVICE='cpu')
    assert device_kinds.patch_get_device(module) == (found is not None)
    assert expected == module.DEVICE


def test_an_accelerator_that_mmengine_knows_stays(monkeypatch):
    monkeypatch.setattr(torch.accelerator, 'is_available', lambda: True)
    module = module_with(DEVICE='npu')
    assert not device_kinds.patch_get_device(module)
    assert module.DEVICE == 'npu'
