# Copyright (c) addp_mm contributors. Apache-2.0.
"""Batch norms that do more than normalise, when mmengine synchronises them."""

import logging
import sys
from typing import Any

from addp_mm.compat.importing import replace
from addp_mm.errors import UserError


class SyncBatchNormError(UserError, RuntimeError):
    """mmcv's synchronised batch norm cannot replace a layer."""


def patch_norms_with_activation(module: Any) -> bool:
    """Keep the activation of timm's batch norms when ``sync_bn`` or its end replaces them.

    timm's ``BatchNormAct2d`` normalises, drops and activates. mmengine replaces every subclass of a
    batch norm by a plain one, whose forward pass has no activation. Most of timm's convolutional
    models have such layers.

    Args:
        module: ``mmengine.model.utils``.

    Returns:
        Whether mmengine replaces subclasses by plain batch norms.
    """
    from torch import nn

    class Probe(nn.BatchNorm1d):
        def forward(self, x):
            return x

    if type(module.convert_sync_batchnorm(Probe(1), 'torch')) is not nn.SyncBatchNorm:
        return False

    def make_convert(original):

        def convert_sync_batchnorm(module, implementation='torch'):
            # mmengine calls this function for each child
            kind = _kept_kind(module, 'SyncBatchNormAct', implementation)
            converted = original(module, implementation)
            if kind is not None:
                converted.__class__ = kind
            return converted

        return convert_sync_batchnorm

    def make_revert(original):

        def revert_sync_batchnorm(module):
            kind = _kept_kind(module, 'BatchNormAct2d') if isinstance(module, nn.SyncBatchNorm) else None
            reverted = original(module)
            if kind is not None:
                reverted.__class__ = kind
            return reverted

        return revert_sync_batchnorm

    replace(module, 'convert_sync_batchnorm', make_convert)
    replace(module, 'revert_sync_batchnorm', make_revert)
    return True


def _kept_kind(layer: Any, timm_name: str, implementation: str = 'torch') -> type | None:
    """The class of timm that replaces a batch norm with an activation; None for any other layer.

    Warns about other layers whose replacement does less.

    Raises:
        SyncBatchNormError: mmcv's batch norm cannot have the activation.
    """
    from mmengine.logging import print_log
    from torch import nn

    base = nn.modules.batchnorm._BatchNorm  # noqa: SLF001  # mmengine replaces its subclasses
    if not isinstance(layer, base) or type(layer).forward in (base.forward, nn.SyncBatchNorm.forward):
        return None
    layers = sys.modules.get('timm.layers.norm_act')  # imported, if the model has one of its layers
    if layers is None or not isinstance(layer, (layers.BatchNormAct2d, layers.SyncBatchNormAct)):
        print_log(
            f'sync_bn replaces {type(layer).__module__}.{type(layer).__name__} by a plain batch norm. What else it '
            'computes is left out: remove sync_bn, if that changes the results of the model.',
            logger='current',
            level=logging.WARNING,
        )
        return None
    if implementation != 'torch':
        raise SyncBatchNormError(
            f"sync_bn='{implementation}' would leave out the activation of timm's {type(layer).__name__}: write "
            "sync_bn='torch' (--cfg-options sync_bn=torch)."
        )
    return getattr(layers, timm_name)
