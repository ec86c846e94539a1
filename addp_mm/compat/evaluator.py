# Copyright (c) addp_mm contributors. Apache-2.0.
"""Metrics of predictions in bfloat16."""

from typing import Any

from addp_mm.compat.importing import replace_method


def patch_evaluator(module: Any) -> bool:
    """Give metrics float32 instead of bfloat16: they convert to numpy, which has no bfloat16.

    Args:
        module: ``mmengine.evaluator.evaluator``.

    Returns:
        True.
    """

    def make(original):

        def process(self, data_samples, data_batch=None):
            original(self, [_without_bfloat16(sample) for sample in data_samples], data_batch)

        return process

    replace_method(module.Evaluator, 'process', make)
    return True


def _without_bfloat16(value: Any) -> Any:
    import torch
    from mmengine.structures import BaseDataElement

    if isinstance(value, BaseDataElement):
        value = value.to_dict()
    if isinstance(value, dict):
        return {key: _without_bfloat16(part) for key, part in value.items()}
    if isinstance(value, torch.Tensor) and value.dtype == torch.bfloat16:
        return value.float()
    return value
