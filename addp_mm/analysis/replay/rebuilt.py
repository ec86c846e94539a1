# Copyright (c) addp_mm contributors. Apache-2.0.
"""Model and optimizer of a saved failed iteration."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

from mmengine.config import Config
from mmengine.optim import BaseOptimWrapper, OptimWrapperDict, build_optim_wrapper
from mmengine.registry import init_default_scope
from torch import nn

from addp_mm.checkpoints.comparison import compare_weights
from addp_mm.checkpoints.errors import CheckpointError
from addp_mm.config.data_types import check_data_config
from addp_mm.errors import ConfigError
from addp_mm.registry import MODELS

_USED = ('default_scope', 'custom_imports', 'model', 'optim_wrapper')


def config_of(event: Mapping[str, Any]) -> Config:
    """What the replay needs of the config of an event, whose file may come from a stranger.

    Args:
        event: From :func:`~addp_mm.engine.guards.failed_batch.read_event`.

    Raises:
        ConfigError: It has no model, or could run code, see
            :func:`~addp_mm.config.data_types.check_data_config`.
    """
    cfg = event['config']
    if not all(cfg.get(key) and isinstance(cfg[key], Mapping) for key in ('model', 'optim_wrapper')):
        raise ConfigError('the event has no config of a model and an optimizer: give --config')
    used = {key: copy.deepcopy(cfg[key]) for key in _USED if key in cfg}
    try:
        check_data_config(used, "the event's config")
    except ConfigError as error:
        raise ConfigError(f'{error}. For a failed batch, give --config') from error
    return Config(used)


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
