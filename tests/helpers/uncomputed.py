# Copyright (c) addp_mm contributors. Apache-2.0.
"""Models of full size whose shapes matter, and no value."""

from __future__ import annotations

from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode

_ATEN = torch.ops.aten
_PRODUCTS = (_ATEN.convolution, _ATEN.addmm, _ATEN.mm, _ATEN.bmm, _ATEN.baddbmm)


class Uncomputed(TorchDispatchMode):
    """Gives zeros in place of matrix products and convolutions.

    Enter it before a counter of operations, which then counts them all.
    """

    def __torch_dispatch__(self, function: Any, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        if function.overloadpacket not in _PRODUCTS:
            return function(*args, **(kwargs or {}))
        shapes = (one.to('meta') if isinstance(one, torch.Tensor) else one for one in args)
        empty = function(*shapes, **(kwargs or {}))
        return torch.zeros(empty.shape, dtype=empty.dtype)
