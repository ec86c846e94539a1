# Copyright (c) addp_mm contributors. Apache-2.0.
"""A config of mmdet, mmseg or mmpretrain with another backbone and neck: write, build, train it."""

from __future__ import annotations

import copy
import importlib
import subprocess
import sys
from pathlib import Path

from mmengine.config import Config
from mmengine.model import revert_sync_batchnorm
from mmengine.optim import build_optim_wrapper
from mmengine.registry import DefaultScope

import addp_mm  # noqa: F401  # before the packages, which need its mmcv._ext

WIDTH = 32
ARCH = dict(embed_dims=WIDTH, num_layers=4, num_heads=2)
IMPORTS = {False: '', True: "custom_imports = dict(imports=['addp_mm'], allow_failed_imports=False)\n"}


def write_swap(path: Path, base: str, model: str, custom_imports: bool = False) -> Path:
    """Write a config that inherits ``base`` (``'mmseg::…'``) and replaces parts of it.

    Args:
        path: File to write.
        base: Name of the config in its package.
        model: Source text with the replacements. ARCH and WIDTH in it become those of a backbone
            that is small enough for a test.
        custom_imports: Whether the config imports addp_mm. Defaults to False.
    """
    text = model.replace('ARCH', repr(ARCH)).replace('WIDTH', str(WIDTH))
    path.write_text(f'_base_ = {base!r}\n{IMPORTS[custom_imports]}{text}')
    return path


def replaced(new, old, name: str = '') -> set[str]:
    """Dotted names at which two configs differ. An object of another type is one difference."""
    if isinstance(new, (list, tuple)) and isinstance(old, (list, tuple)):
        new, old = dict(enumerate(new)), dict(enumerate(old))
    if isinstance(new, dict) and isinstance(old, dict) and new.get('type') == old.get('type'):
        return set().union(
            *(
                replaced(new.get(key), old.get(key), f'{name}.{key}'.lstrip('.'))
                for key in {*new, *old} - {'_scope_', 'custom_imports'}
            ),
            set(),
        )
    return set() if new == old else {name}


def build(cfg: Config):
    """Build the model with its package's registry, as a Runner does on one device."""
    scope = cfg.default_scope
    models = importlib.import_module(f'{scope}.registry').MODELS
    model = copy.deepcopy(cfg.model)
    if cfg.get('data_preprocessor') and 'data_preprocessor' not in model:
        model.data_preprocessor = cfg.data_preprocessor
    with DefaultScope.overwrite_default_scope(scope):
        built = revert_sync_batchnorm(models.build(model))
        built.init_weights()
    return built


def step_and_predict(cfg: Config, model, batch: dict):
    """Train one step with the config's optimizer, and predict.

    Returns:
        The logged values, names of parameters without gradient, and the predictions.
    """
    with DefaultScope.overwrite_default_scope(cfg.default_scope):
        optimizer = build_optim_wrapper(model, copy.deepcopy(cfg.optim_wrapper))
        norms = {}
        for name, parameter in model.named_parameters():
            if parameter.requires_grad:
                parameter.register_hook(lambda grad, name=name: norms.__setitem__(name, grad.norm().item()))
        logged = model.train().train_step(copy.deepcopy(batch), optimizer)
        model.eval()
        predictions = model.test_step(copy.deepcopy(batch))
    idle = [name for name, parameter in model.named_parameters() if parameter.requires_grad and name not in norms]
    return logged, idle, predictions


def run_in_new_process(source: str) -> str:
    """Run a script in a new process; return its output."""
    done = subprocess.run([sys.executable, '-c', source], capture_output=True, text=True)
    assert done.returncode == 0, (done.stdout + done.stderr)[-4000:]
    return done.stdout
