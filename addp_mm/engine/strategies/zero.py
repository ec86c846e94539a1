# Copyright (c) addp_mm contributors. Apache-2.0.
"""DeepSpeed's ZeRO."""

from __future__ import annotations

from collections.abc import Callable

from mmengine._strategy import DeepSpeedStrategy

from addp_mm.registry import STRATEGIES


@STRATEGIES.register_module()
class ZeroStrategy(DeepSpeedStrategy):
    """mmengine's DeepSpeedStrategy, whose checkpoints contain the hooks' state.

    mmengine's own strategy does not call the hooks, so that their state (such as the position in
    the data) would be lost. Here they get the content of the file next to DeepSpeed's own files,
    before it is written and after it is read.

    Args:
        **kwargs: Arguments of mmengine's DeepSpeedStrategy: ``zero_optimization``, ``bf16``, ….
    """

    def save_checkpoint(
        self, filename: str, *, extra_ckpt: dict | None = None, callback: Callable | None = None, **kwargs
    ) -> None:
        """Save, after the hooks have added their state."""
        extra_ckpt = {} if extra_ckpt is None else extra_ckpt
        if callback is not None:
            callback(extra_ckpt)
        super().save_checkpoint(filename, extra_ckpt=extra_ckpt, **kwargs)

    def load_checkpoint(self, filename: str, *, callback: Callable | None = None, **kwargs) -> dict:
        """Load weights, and let the hooks read their state."""
        return _shown(super().load_checkpoint(filename, **kwargs), callback)

    def resume(self, filename: str, *, callback: Callable | None = None, **kwargs) -> dict:
        """Load weights, optimizer and counters, and let the hooks read their state."""
        return _shown(super().resume(filename, **kwargs), callback)


def _shown(checkpoint: dict, callback: Callable | None) -> dict:
    if callback is not None:
        callback(checkpoint)
    return checkpoint
