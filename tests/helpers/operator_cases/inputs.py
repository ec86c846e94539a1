# Copyright (c) addp_mm contributors. Apache-2.0.
"""Random arguments of operators, and a call of one."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch


@dataclass(frozen=True)
class OperatorCase:
    """A call of an operator of ``mmcv._ext``.

    Args:
        name: Its name.
        args: All arguments, in order.
        filled: Positions of the arguments that it writes to. Defaults to none: it returns its
            results.
        named: Arguments by name. Defaults to none.
    """

    name: str
    args: tuple[Any, ...]
    filled: tuple[int, ...] = ()
    named: Mapping[str, Any] = field(default_factory=dict)


class Inputs:
    """Makes the same random tensors for each device.

    Args:
        device: The device.
        ext: Operators that compute what a backward pass needs.
    """

    def __init__(self, device, ext):
        self.device, self.ext = device, ext
        self.generator = torch.Generator().manual_seed(0)

    def randn(self, *shape):
        return torch.randn(*shape, generator=self.generator).to(self.device)

    def rand(self, *shape):
        return torch.rand(*shape, generator=self.generator).to(self.device)

    def whole(self, limit, *shape, dtype=torch.long):
        """Whole numbers from 0 to ``limit - 1``."""
        return torch.randint(limit, shape, generator=self.generator).to(self.device, dtype)

    def zeros(self, *shape, dtype=torch.float32):
        return torch.zeros(*shape, dtype=dtype, device=self.device)

    def counts(self, *numbers):
        """int32 numbers."""
        return torch.tensor(numbers, dtype=torch.int32, device=self.device)

    def maps(self):
        """(2, 4, 20, 24) features."""
        return self.randn(2, 4, 20, 24)

    def boxes(self, count, size=60):
        """(count, 4) boxes x1, y1, x2, y2."""
        corner = self.rand(count, 2) * size
        return torch.cat([corner, corner + 2 + self.rand(count, 2) * size / 2], 1)

    def rotated_boxes(self, count, size=60):
        """(count, 5) boxes x, y, width, height, angle."""
        sides = 2 + self.rand(count, 2) * size / 2
        angle = self.rand(count, 1) * 7 - 3.5
        return torch.cat([self.rand(count, 2) * size, sides, angle], 1)

    def scores(self, count):
        """(count,) scores, many of them equal."""
        return (self.rand(count) * 20).floor().div(20)

    def with_image(self, regions):
        """Regions with the index of one of two images first."""
        return torch.cat([self.whole(2, len(regions), 1).to(regions), regions], 1)
