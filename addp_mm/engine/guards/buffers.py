# Copyright (c) addp_mm contributors. Apache-2.0.
"""Buffers of a model before an iteration, which its forward pass changes."""

from __future__ import annotations

import torch
from torch import Tensor, nn

_LARGEST = 2**20  # larger buffers are tables that do not change


class BufferCopy:
    """A copy of the buffers, such as the statistics of batch norms and counters of iterations.

    Args:
        model: The model.
    """

    def __init__(self, model: nn.Module) -> None:
        self._model = model
        self._copies: dict[str, Tensor] = {}

    def update(self) -> None:
        """Copy the buffers of up to 2^20 values as they are now."""
        now = {name: buffer for name, buffer in self._model.named_buffers() if buffer.numel() <= _LARGEST}
        if {name: (one.shape, one.dtype, one.device) for name, one in now.items()} != {
            name: (one.shape, one.dtype, one.device) for name, one in self._copies.items()
        }:
            self._copies = {name: buffer.detach().clone() for name, buffer in now.items()}
        elif now:
            torch._foreach_copy_(list(self._copies.values()), list(now.values()))  # no public name

    def restore_floats(self) -> None:
        """Give floating-point buffers their earlier values; counters keep theirs."""
        for name, buffer in self._model.named_buffers():
            if name in self._copies and buffer.is_floating_point():
                buffer.data.copy_(self._copies[name])

    def before(self, state_dict: dict[str, Tensor]) -> dict[str, Tensor]:
        """A state dict of the model with the earlier values of the buffers."""
        return {name: self._copies.get(name, value) for name, value in state_dict.items()}
