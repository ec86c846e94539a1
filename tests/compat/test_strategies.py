# Copyright (c) addp_mm contributors. Apache-2.0.
"""FlexibleRunner from a config, and DeepSpeedStrategy with a DeepSpeed that lacks optimizers."""

import sys
from types import ModuleType

import pytest
from mmengine.config import Config
from mmengine.registry import Registry

import addp_mm  # noqa: F401
from addp_mm.compat.deepspeed import patch_deepspeed_optimizers


def test_flexible_runner_reads_compile_and_needs_no_env_cfg(tmp_path):
    from mmengine.runner import FlexibleRunner

    cfg = Config(
        dict(
            model=dict(type='Any'),
            work_dir=str(tmp_path),
            launcher='none',
            compile=dict(backend='eager'),
            experiment_name='flexible',
            log_level='ERROR',
            visualizer=dict(type='Visualizer', name='flexible'),
        )
    )
    assert FlexibleRunner.from_cfg(cfg)._compile == dict(backend='eager')
    cfg.pop('compile')
    cfg.visualizer.name = cfg.experiment_name = 'flexible_2'
    assert FlexibleRunner.from_cfg(cfg)._compile is False
    with pytest.raises(TypeError):
        FlexibleRunner.__init__.__wrapped__(
            object.__new__(FlexibleRunner), cfg.model, work_dir=str(tmp_path), launcher='none', env_cfg=None
        )


def strategy_module(error: type[Exception] | None) -> ModuleType:
    module = ModuleType('strategy_of_a_test')
    module.OPTIMIZERS = Registry('optimizer of a test')

    def register_deepspeed_optimizers():
        if error:
            raise error('deepspeed.runtime.fp16.onebit')
        return ['its own']

    module.register_deepspeed_optimizers = register_deepspeed_optimizers
    patch_deepspeed_optimizers(module)
    return module


def test_deepspeed_optimizers_that_exist_are_registered(monkeypatch):
    adam = ModuleType('deepspeed.ops.adam')
    adam.FusedAdam = type('FusedAdam', (), {})
    for name, module in {
        'deepspeed': ModuleType('deepspeed'),
        'deepspeed.ops': ModuleType('deepspeed.ops'),
        'deepspeed.ops.adam': adam,
        'deepspeed.ops.lamb': None,
        'deepspeed.runtime': ModuleType('deepspeed.runtime'),
    }.items():
        monkeypatch.setitem(sys.modules, name, module)
    module = strategy_module(ModuleNotFoundError)
    for _ in range(2):  # a process can build two strategies
        assert module.register_deepspeed_optimizers() == ['FusedAdam']
    assert module.OPTIMIZERS.get('FusedAdam') is adam.FusedAdam
    assert strategy_module(None).register_deepspeed_optimizers() == ['its own']
