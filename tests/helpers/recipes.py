# Copyright (c) addp_mm contributors. Apache-2.0.
"""Full-size configs in tests: read one, build it without memory, list its learning rates."""

from __future__ import annotations

import copy
import importlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path

import pytest
import torch
from mmengine.config import Config
from mmengine.registry import DefaultScope
from torch import nn

import addp_mm  # noqa: F401  # before the packages, which need its mmcv._ext
from addp_mm.registry import MODELS

CONFIGS = Path(__file__).parents[2] / 'configs'
LOADED = ('Pretrained', 'PretrainedInit')
# of random initial values; torch takes milliseconds to find that a meta tensor has none
_FILLS = ('uniform_', 'normal_', 'erfinv_', 'clamp_')


def recipe_paths(task: str, pattern: str = '*.py') -> list[Path]:
    """Config files of a folder (``'cls'``, ``'det'``, ``'pretrain'``, ``'seg'``) without nano."""
    return sorted(path for path in (CONFIGS / task).glob(pattern) if 'nano' not in path.stem)


def load_recipe(path: str | Path) -> Config:
    """A copy of the config at ``path``, absolute or below ``configs/``; each file is read once."""
    return copy.deepcopy(_read(CONFIGS / path))


@cache
def _read(path: Path) -> Config:
    return Config.fromfile(path)


@contextmanager
def recipe_scope(cfg: Config) -> Iterator[None]:
    """Import the package of ``cfg`` and make its scope the default, as a Runner does."""
    scope = cfg.get('default_scope') or 'mmengine'
    if scope in ('mmdet', 'mmpretrain', 'mmseg'):
        for part in ('models', 'datasets', 'engine'):
            importlib.import_module(f'{scope}.{part}')
    with DefaultScope.overwrite_default_scope(scope):
        yield


def build_recipe(cfg: Config) -> nn.Module:
    """Build the model as a Runner does, without ``init_weights``: no checkpoint is read."""
    model = copy.deepcopy(cfg.model)
    if cfg.get('data_preprocessor') is not None:
        model.setdefault('data_preprocessor', copy.deepcopy(cfg.data_preprocessor))
    with recipe_scope(cfg):
        return MODELS.build(model)


def build_on_meta(cfg: Config) -> nn.Module:
    """Build as :func:`build_recipe`, with all parameters on the meta device, without numbers.

    Buffers and other tensors of a constructor stay on the CPU, so it can read them.
    """
    with _parameters_on_meta():
        return build_recipe(cfg)


@contextmanager
def _parameters_on_meta() -> Iterator[None]:
    register = nn.Module.register_parameter

    def register_on_meta(self: nn.Module, name: str, param: nn.Parameter | None) -> None:
        if param is not None and not param.is_meta:
            param = nn.Parameter(param.data.to('meta'), requires_grad=param.requires_grad)
        register(self, name, param)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(nn.Module, 'register_parameter', register_on_meta)
        for name in _FILLS:
            patch.setattr(torch.Tensor, name, _filled_unless_meta(getattr(torch.Tensor, name)))
        yield


def _filled_unless_meta(fill: Callable) -> Callable:
    return lambda self, *args, **kwargs: self if self.is_meta else fill(self, *args, **kwargs)


def build_optimizer(cfg: Config, model: nn.Module):
    """The optimizer wrapper of a config."""
    from mmengine.optim import build_optim_wrapper

    with recipe_scope(cfg):
        return build_optim_wrapper(model, copy.deepcopy(cfg.optim_wrapper))


def optimizer_table(cfg: Config, model: nn.Module) -> dict[str, tuple[float, float]]:
    """Learning rate and weight decay of each trained parameter.

    Returns:
        For each name, the learning rate as a share of ``optim_wrapper.optimizer.lr``, and the
        weight decay. Parameters without gradient or without optimizer are left out.
    """
    optimizer = build_optimizer(cfg, model).optimizer
    base = cfg.optim_wrapper.optimizer.lr
    settings = {
        id(parameter): (group['lr'] / base, group.get('weight_decay', 0.0))
        for group in optimizer.param_groups
        for parameter in group['params']
    }
    return {
        name: settings[id(parameter)]
        for name, parameter in model.named_parameters()
        if parameter.requires_grad and id(parameter) in settings
    }


def without_checkpoints(node):
    """Copy a config, or a section of it, so that no ``init_cfg`` reads a file."""
    if isinstance(node, Config):
        return Config(without_checkpoints(node._cfg_dict))
    if isinstance(node, dict):
        return type(node)(
            {
                key: None if key == 'init_cfg' and _reads_a_file(value) else without_checkpoints(value)
                for key, value in node.items()
            }
        )
    return type(node)(map(without_checkpoints, node)) if isinstance(node, (list, tuple)) else node


def _reads_a_file(init_cfg) -> bool:
    parts = init_cfg if isinstance(init_cfg, (list, tuple)) else [init_cfg]
    return any(part and str(part.get('type', '')).rsplit('.', 1)[-1] in LOADED for part in parts)


def shrink(cfg: Config, **options) -> Config:
    """Copy a config so that no checkpoint is read, and replace the values named in ``options``.

    Unlike ``--cfg-options``, this replaces a dict as a whole: ``arch='base'`` can become a dict.

    Example:
        >>> shrink(cfg, **{'model.backbone.arch': dict(embed_dims=8, num_layers=2, num_heads=2)})
    """
    small = without_checkpoints(copy.deepcopy(cfg))
    for name, value in options.items():
        *parents, last = (int(part) if part.isdigit() else part for part in name.split('.'))
        node = small._cfg_dict
        for parent in parents:
            node = node[parent]
        node[last] = value
    return small


def train_step(cfg: Config, model: nn.Module, batch: dict) -> dict:
    """Train one step with the config's optimizer on a batch; return the log values."""
    return model.train().train_step(batch, build_optimizer(cfg, model))


def undocumented(task: str) -> list[str]:
    """Recipes that are missing in the README or the metafile of their folder."""
    folder = CONFIGS / task
    readme, index = (folder / 'README.md').read_text(), (folder / 'metafile.yml').read_text()
    return [
        path.name
        for path in recipe_paths(task)
        if f'({path.name})' not in readme or f'Config: configs/{task}/{path.name}\n' not in index
    ]
