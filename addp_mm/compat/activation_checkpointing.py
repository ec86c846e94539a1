# Copyright (c) addp_mm contributors. Apache-2.0.
"""The Runner's ``activation_checkpointing`` key."""

from types import ModuleType

from addp_mm.compat.importing import replace


def mend_activation_checkpointing(module: ModuleType) -> None:
    """Checkpoint without re-entering autograd, keyword arguments included.

    mmengine drops keyword arguments, and its re-entrant checkpoint yields no gradient where the
    inputs need none (the first block of a model). Applied to
    ``mmengine.runner.activation_checkpointing`` where keyword arguments are lost.
    """
    import torch

    try:
        module.wrap_forward(lambda x, scale: x * scale)(torch.ones(1), scale=2)
    except TypeError:
        replace(module, 'wrap_forward', _make_wrap_forward)


def _make_wrap_forward(original):

    def wrap_forward(forward):
        import functools

        from torch.utils.checkpoint import checkpoint

        @functools.wraps(forward)
        def checkpointed(*args, **kwargs):
            return checkpoint(forward, *args, use_reentrant=False, **kwargs)

        return checkpointed

    return wrap_forward
