# Copyright (c) addp_mm contributors. Apache-2.0.
"""Activation checkpointing of Runner."""

from typing import Any

from addp_mm.compat.importing import replace


def patch_activation_checkpointing(module: Any) -> bool:
    """Use non-reentrant checkpoints, and pass keyword arguments.

    mmengine drops keyword arguments. Its re-entrant checkpoint gives no gradient if the inputs need
    no gradient, such as those of a model's first block.

    Args:
        module: ``mmengine.runner.activation_checkpointing``.

    Returns:
        Whether keyword arguments were lost.
    """
    import torch

    try:
        module.wrap_forward(lambda x, scale: x * scale)(torch.ones(1), scale=2)
    except TypeError:
        replace(module, 'wrap_forward', _make_wrap_forward)
        return True
    return False


def _make_wrap_forward(original):

    def wrap_forward(forward):
        import functools

        from torch.utils.checkpoint import checkpoint

        @functools.wraps(forward)
        def checkpointed(*args, **kwargs):
            return checkpoint(forward, *args, use_reentrant=False, **kwargs)

        return checkpointed

    return wrap_forward
