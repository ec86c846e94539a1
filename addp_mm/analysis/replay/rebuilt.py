# Copyright (c) addp_mm contributors. Apache-2.0.
"""Model and optimizer of a saved failed iteration."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from typing import Any

from mmengine.config import Config
from mmengine.optim import BaseOptimWrapper, OptimWrapperDict, build_optim_wrapper
from mmengine.registry import init_default_scope
from torch import nn

from addp_mm.checkpoints.comparison import compare_weights
from addp_mm.checkpoints.errors import CheckpointError
from addp_mm.config.config_file import ConfigError
from addp_mm.registry import MODELS


def config_of(event: Mapping[str, Any]) -> Config:
    """The config of an event. Its file may come from a stranger, and types may call any function.

    Args:
        event: From :func:`~addp_mm.engine.guards.failed_batch.read_event`.

    Raises:
        ConfigError: It has no model, imports modules, or names a type by its whole path.
    """
    cfg = event['config']
    if not cfg.get('model') or not cfg.get('optim_wrapper'):
        raise ConfigError('the event has no config of a model and an optimizer: give --config')
    if cfg.get('custom_imports'):
        raise ConfigError(
            f"the event's config imports {cfg['custom_imports'].get('imports')}, and nothing is imported because a "
            'file says so: give --config'
        )
    paths = [name for part in ('model', 'optim_wrapper') for name in _types(cfg[part]) if name.count('.') > 1]
    if paths:
        raise ConfigError(f"the event's config names the type {paths[0]} by its path: give --config")
    return Config(copy.deepcopy(cfg))


def build_model(cfg: Config, weights: Mapping[str, Any], source: str, device: str) -> nn.Module:
    """The model with the weights of the event, in training mode.

    Args:
        cfg: Config of the training.
        weights: State dict of the model.
        source: Name of the weights' file, for errors.
        device: Where the model runs.

    Raises:
        CheckpointError: The weights are not those of the model.
    """
    init_default_scope(cfg.get('default_scope') or 'mmengine')
    model = MODELS.build(cfg.model)
    comparison = compare_weights(weights, model)
    if not comparison.is_exact:
        raise CheckpointError(f'{source} does not fit the model of the config: {comparison.differences()}')
    model.load_state_dict(dict(weights))
    return model.to(device).train()


def build_wrapper(cfg: Config, model: nn.Module, loss_scale: float | None) -> BaseOptimWrapper | OptimWrapperDict:
    """The optimizer wrapper, whose steps do nothing, so that weights and gradients stay.

    Args:
        cfg: Config of the training.
        model: The model.
        loss_scale: Loss scale of the iteration, or None.
    """
    wrapper = build_optim_wrapper(model, copy.deepcopy(cfg.optim_wrapper))
    for part in wrapper.values() if isinstance(wrapper, OptimWrapperDict) else [wrapper]:
        part.step = part.zero_grad = lambda **_: None  # type: ignore[method-assign]
        if loss_scale is not None and hasattr(part, 'loss_scaler') and part.loss_scaler.is_enabled():
            part.loss_scaler.load_state_dict({**part.loss_scaler.state_dict(), 'scale': loss_scale})
    return wrapper


def _types(node: Any) -> Iterator[str]:
    if isinstance(node, Mapping):
        if isinstance(node.get('type'), str):
            yield node['type']
        node = list(node.values())
    for part in node if isinstance(node, (list, tuple)) else ():
        yield from _types(part)
