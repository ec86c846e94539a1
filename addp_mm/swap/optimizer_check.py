# Copyright (c) addp_mm contributors. Apache-2.0.
"""Whether the optimizer of a config suits its backbone."""

from __future__ import annotations

from collections.abc import Mapping
from logging import WARNING
from typing import Any

from mmengine.config import Config
from mmengine.logging import print_log
from torch import nn

from addp_mm.config.type_names import type_name
from addp_mm.swap.feature_maps import build_without_memory
from addp_mm.swap.plan import SwapError

# AdamW and its relatives take up to 4e-3, for 4096 images; stock configs of SGD take 0.01 or more.
_RATE_OF_SGD = 0.01


def warn_about_optimizer(cfg: Config) -> None:
    """Warn if a transformer is trained with SGD, or with a learning rate of SGD.

    A backbone counts as a transformer if linear layers have more weights than convolutions, as in
    ConvNeXt, which needs AdamW too. A backbone that is frozen whole may have any optimizer.

    Args:
        cfg: The whole config.
    """
    wrapper, backbone = cfg.get('optim_wrapper') or {}, cfg.model.get('backbone')
    optimizer = wrapper.get('optimizer') or {}
    kind, rate = type_name(optimizer.get('type')), optimizer.get('lr')
    is_sgd = kind == 'SGD'
    is_too_high = kind.startswith('Adam') and isinstance(rate, int | float) and rate >= _RATE_OF_SGD
    if not (is_sgd or is_too_high) or not backbone or _multiplier(wrapper) == 0:
        return
    try:
        built = build_without_memory(backbone, cfg.get('default_scope') or 'mmpretrain')
    except (SwapError, RuntimeError, NotImplementedError):  # the trial says why it cannot be built
        return
    if not _is_trained(built) or _share_of_linear(built) < 0.5:
        return
    name = type_name(backbone.get('type'))
    if is_sgd:
        print_log(
            f'optim_wrapper.optimizer.type is SGD, which seldom trains a transformer such as {name} well: set '
            "optim_wrapper.optimizer=dict(_delete_=True, type='AdamW', lr=1e-4, weight_decay=0.05), or freeze the "
            'backbone',
            'current',
            WARNING,
        )
    else:
        print_log(
            f'optim_wrapper.optimizer.lr={rate:g} is a learning rate of SGD, and too high for {kind} with {name}: '
            'set it to 1e-4 for 16 images of a detector or segmentor, or to 1e-3 for 256 images of a classifier',
            'current',
            WARNING,
        )


def _multiplier(wrapper: Mapping[str, Any]) -> float:
    """By how much the learning rate of the whole backbone is multiplied."""
    custom = (wrapper.get('paramwise_cfg') or {}).get('custom_keys') or {}
    return (custom.get('backbone') or {}).get('lr_mult', 1)


def _is_trained(backbone: nn.Module) -> bool:
    backbone.train()
    return any(parameter.requires_grad for parameter in backbone.parameters())


def _share_of_linear(backbone: nn.Module) -> float:
    """Share of linear layers in the weights of linear and convolutional layers, from 0 to 1."""
    linear, convolutional = (
        sum(one.weight.numel() for one in backbone.modules() if isinstance(one, kind))
        for kind in (nn.Linear, nn.Conv2d)
    )
    return linear / max(1, linear + convolutional)
