# Copyright (c) addp_mm contributors. Apache-2.0.
"""Losses of mmdet that fail in half precision."""

from typing import Any

from addp_mm.compat.importing import replace_method

_LOSSES = {
    'mmdet.models.dense_heads.autoassign_head': ('AutoAssignHead', 'loss_by_feat'),
    'mmdet.models.dense_heads.vfnet_head': ('VFNetHead', 'loss_by_feat'),
    'mmdet.models.losses.ddq_detr_aux_loss': ('DDQAuxLoss', 'loss'),
}


def patch_half_loss(module: Any) -> bool:
    """Compute a loss in float32, whatever the dtype of the predictions.

    Under autocast mmdet writes float32 targets into tensors that have the predictions' dtype:
    ``Index put requires the source and destination dtypes match``. With float32 predictions nothing
    changes.

    Args:
        module: A key of ``_LOSSES``.

    Returns:
        True.
    """
    name, method = _LOSSES[module.__name__]

    def make(original):

        def loss(self, *args, **kwargs):
            return original(self, *_in_float32(args), **_in_float32(kwargs))

        return loss

    replace_method(getattr(module, name), method, make)
    return True


def _in_float32(value: Any) -> Any:
    """Cast the half precision tensors in tuples, lists and dicts."""
    import torch

    if isinstance(value, torch.Tensor):
        return value.float() if value.dtype in (torch.float16, torch.bfloat16) else value
    if isinstance(value, (list, tuple)):
        return type(value)(_in_float32(item) for item in value)
    if isinstance(value, dict):
        return {key: _in_float32(item) for key, item in value.items()}
    return value
