# Copyright (c) addp_mm contributors. Apache-2.0.
"""What is asked of torch about a device: with modules like those of CUDA, XPU and MPS."""

import pytest
import torch
from helpers.modules import module_with

from addp_mm import devices
from addp_mm.randomness import Purpose, seed_process

CPU = torch.device('cpu')


@pytest.fixture
def accelerator(monkeypatch):
    """Makes torch believe in an accelerator of a kind, whose module has some functions."""

    def make(kind, **functions):
        module = module_with(**functions)
        monkeypatch.setattr(torch.accelerator, 'is_available', lambda: True)
        monkeypatch.setattr(torch.accelerator, 'current_accelerator', lambda: torch.device(kind))
        monkeypatch.setattr(torch, 'get_device_module', lambda device=None: module)
        return torch.device(kind)

    return make


def test_without_an_accelerator_the_cpu_is_chosen_and_nothing_is_asked_of_it(monkeypatch):
    monkeypatch.setattr(torch.accelerator, 'is_available', lambda: False)
    monkeypatch.setattr(torch, 'get_device_module', lambda device=None: pytest.fail('asked'))
    assert devices.default_device() == CPU
    devices.synchronize(CPU)
    devices.empty_cache(CPU)
    devices.seed_accelerators(1)
    assert devices.memory_statistics(CPU) is None
    assert devices.accelerator_name() is None
    assert not devices.supports_bfloat16(CPU)
    assert not devices.is_accelerator(torch.device('meta'))


@pytest.mark.parametrize('kind', ['cuda', 'xpu'])
def test_an_accelerator_with_all_functions(kind, accelerator, monkeypatch):
    calls = []
    device = accelerator(
        kind,
        empty_cache=lambda: calls.append('empty'),
        manual_seed_all=lambda seed: calls.append(seed),
        manual_seed=None,
        is_bf16_supported=lambda: True,
        max_memory_allocated=None,
        get_device_name=lambda: 'a GPU',
    )
    monkeypatch.setattr(torch.accelerator, 'synchronize', calls.append)
    assert devices.default_device() == device
    devices.synchronize(device)
    devices.empty_cache(device)
    devices.seed_accelerators(7)
    assert calls == [device, 'empty', 7]
    assert devices.memory_statistics(device) is torch.get_device_module(device)
    assert devices.supports_bfloat16(device)
    assert devices.accelerator_name() == 'a GPU'


def test_what_mps_lacks_is_left_out(accelerator):
    seeds = []
    device = accelerator('mps', manual_seed=seeds.append)
    assert devices.memory_statistics(device) is None
    assert not devices.supports_bfloat16(device)
    assert devices.accelerator_name() == 'mps'
    devices.empty_cache(device)
    devices.seed_accelerators(3)
    assert seeds == [3]


def test_a_step_seeds_the_accelerator_and_a_sample_does_not(accelerator):
    seeds = []
    accelerator('xpu', manual_seed_all=seeds.append, manual_seed=None)
    seed_process(1, Purpose.AUGMENTATION, accelerators=False)
    assert seeds == []
    seed_process(1, Purpose.TRAINING_STEP)
    assert seeds == [torch.initial_seed()]
