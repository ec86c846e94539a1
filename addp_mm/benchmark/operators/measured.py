# Copyright (c) addp_mm contributors. Apache-2.0.
"""An operator to time, and the random inputs of its calls."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

Call = Callable[[], object]
OPERATORS: dict[str, Operator] = {}
LARGE_SCALE_CHANNELS = 256


@dataclass(frozen=True)
class Operator:
    """An operator and how it is called.

    Attributes:
        name: Its name.
        sizes: Sizes of the call at scale 1.
        reference: What computes the same without mmcv; None if nothing simple does.
        build: Makes the call of the function in ``mmcv.ops``, and that of the reference or None.
            Both return a tensor, or a list of tensors.
    """

    name: str
    sizes: str
    reference: str | None
    build: Callable[[Inputs], tuple[Call, Call | None]]


def measured(reference: str | None) -> Callable:
    """Add a function to :data:`OPERATORS`, as the ``build`` of an operator of its name.

    Its docstring states the sizes.

    Args:
        reference: What computes the same without mmcv; None if nothing simple does.
    """

    def add(build: Callable[[Inputs], tuple[Call, Call | None]]) -> Callable:
        name, sizes = build.__name__, (build.__doc__ or '').rstrip('.')
        OPERATORS[name] = Operator(name, sizes, reference, build)
        return build

    return add


class Inputs:
    """Random inputs on one device, smaller than the usual ones by a factor.

    Args:
        device: The device.
        scale: The factor, from 0 to 1.
    """

    def __init__(self, device: torch.device, scale: float) -> None:
        self.device, self.scale = device, scale
        self.generator = torch.Generator().manual_seed(0)

    def size(self, usual: int, least: int = 2) -> int:
        """A size at this scale, at least ``least``."""
        return max(least, round(usual * self.scale))

    def rand(self, *shape: int, grad: bool = False) -> Tensor:
        """Uniform numbers in [0, 1)."""
        return torch.rand(shape, generator=self.generator).to(self.device).requires_grad_(grad)

    def whole(self, limit: int, *shape: int) -> Tensor:
        """int64 numbers from 0 to ``limit - 1``."""
        return torch.randint(limit, shape, generator=self.generator).to(self.device)

    def scores(self, count: int) -> Tensor:
        """Scores of which no two are equal, so that one order is right."""
        return ((torch.randperm(count, generator=self.generator).float() + 1) / (count + 1)).to(self.device)

    def maps(self, stride: int, channels: int = LARGE_SCALE_CHANNELS, least: int = 2) -> Tensor:
        """(2, channels, H, W) features of images of 800 x 1333, with a gradient."""
        height, width = (self.size(-(-side // stride), least) for side in (800, 1333))
        return self.rand(2, channels, height, width, grad=True)

    def boxes(self, count: int, height: float, width: float) -> Tensor:
        """(count, 4) boxes x1, y1, x2, y2 inside an image."""
        sides = torch.tensor([width, height], device=self.device)
        starts = self.rand(count, 2) * 0.8 * sides
        return torch.cat([starts, starts + (0.02 + 0.18 * self.rand(count, 2)) * sides], dim=1)

    def rotated(self, count: int, height: float, width: float) -> Tensor:
        """(count, 5) boxes x, y, width, height, angle inside an image."""
        sides = torch.tensor([width, height], device=self.device)
        centers = (0.2 + 0.6 * self.rand(count, 2)) * sides
        return torch.cat([centers, (0.02 + 0.18 * self.rand(count, 2)) * sides, 6 * self.rand(count, 1) - 3], dim=1)

    def with_image(self, regions: Tensor) -> Tensor:
        """Regions, the first half of image 0 and the rest of image 1, with its index first."""
        image = torch.arange(len(regions), device=self.device) >= len(regions) // 2
        return torch.cat([image[:, None].to(regions), regions], dim=1)


def differentiated(function: Callable[..., Tensor], *inputs: Tensor) -> Call:
    """A call of a function and of its backward pass: returns the output and all gradients."""
    flows: dict[torch.Size, Tensor] = {}

    def run() -> list[Tensor | None]:
        for tensor in inputs:
            tensor.grad = None
        out = function(*inputs)
        if out.shape not in flows:  # gradients that differ, so that none is lost in a sum
            flows[out.shape] = torch.linspace(-1, 1, out.numel(), device=out.device).view(out.shape)
        out.backward(flows[out.shape])
        return [out.detach(), *(tensor.grad for tensor in inputs)]

    return run
