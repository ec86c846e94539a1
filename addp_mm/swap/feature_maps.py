# Copyright (c) addp_mm contributors. Apache-2.0.
"""Channels and strides of a backbone's maps, found without its memory and without its weights."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from mmengine.registry import DefaultScope
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from addp_mm.config.type_names import type_name
from addp_mm.registry import MODELS
from addp_mm.swap.plan import SwapError

# A multiple of 128, the coarsest stride of a pyramid, and of 8 patches of 14 px.
PROBE_SIZE = 896


@dataclass(frozen=True)
class FeatureMaps:
    """Maps that a backbone or a neck returns, in its order.

    Args:
        channels: Number of channels of each map.
        strides: Pixels of the image for one position of each map.
    """

    channels: tuple[int, ...]
    strides: tuple[float, ...]

    def __len__(self) -> int:
        return len(self.channels)

    def select(self, indices: Sequence[int]) -> FeatureMaps:
        """Return some of the maps, in the order of ``indices``."""
        return FeatureMaps(tuple(self.channels[i] for i in indices), tuple(self.strides[i] for i in indices))

    def __str__(self) -> str:
        strides = ', '.join(f'{stride:g}' for stride in self.strides)
        channels = ', '.join(str(channels) for channels in self.channels)
        return f'stride{"s" * (len(self) > 1)} {strides} with {channels} channels'


class _RealSpaced(TorchFunctionMode):
    """Keep ``torch.linspace`` on the CPU: backbones read their drop path rates from it."""

    def __torch_function__(self, func: Any, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        kwargs = dict(kwargs or {}, device='cpu') if func is torch.linspace else kwargs or {}
        return func(*args, **kwargs)


@contextmanager
def _without_memory() -> Iterator[None]:
    with torch.device('meta'), _RealSpaced():
        yield


def feature_maps(
    backbone: Mapping, img_size: int | tuple[int, int] = PROBE_SIZE, scope: str = 'mmpretrain'
) -> FeatureMaps:
    """Channels and strides of the maps that a backbone gives.

    The backbone is built on PyTorch's meta device, which has shapes but no numbers. A backbone that
    needs numbers is built on the CPU, with the same result.

    Args:
        backbone: Config of any registered backbone.
        img_size: Pixels of a side, or (height, width), of the images. Defaults to 896.
        scope: Registry in which a type without a package is found. Defaults to 'mmpretrain'.

    Raises:
        SwapError: The backbone does not return maps.
    """
    return maps_after([backbone], img_size, scope)


def maps_after(
    layers: Sequence[Mapping], img_size: int | tuple[int, int] = PROBE_SIZE, scope: str = 'mmpretrain'
) -> FeatureMaps:
    """Channels and strides of the maps after a backbone and the necks that follow it.

    Args:
        layers: Configs of the backbone and of necks, in their order.
        img_size: Pixels of a side, or (height, width), of the images. Defaults to 896.
        scope: Registry in which a type without a package is found. Defaults to 'mmpretrain'.

    Raises:
        SwapError: One of them cannot process images or the maps before it, or returns no maps.
    """
    size = (img_size, img_size) if isinstance(img_size, int) else img_size
    try:
        with _without_memory():
            outputs = _outputs(layers, size, scope, 'meta')
    except (NotImplementedError, RuntimeError):  # an operation without a rule of shapes
        outputs = _outputs(layers, size, scope, 'cpu')
    outputs = [outputs] if isinstance(outputs, Tensor) else outputs
    if not isinstance(outputs, list | tuple) or not all(isinstance(x, Tensor) and x.ndim == 4 for x in outputs):
        raise SwapError(f'{type_name(layers[-1]["type"])} returns no maps (B, channels, height, width)')
    return FeatureMaps(tuple(x.shape[1] for x in outputs), tuple(size[0] / x.shape[2] for x in outputs))


def _outputs(layers: Sequence[Mapping], size: tuple[int, int], scope: str, device: str) -> Any:
    """Output of the last layer for one image."""
    with DefaultScope.overwrite_default_scope(scope):
        built = [_build(cfg) for cfg in layers]
    x: Any = torch.zeros(1, layers[0].get('in_channels', 3), *size, device=device)
    with torch.no_grad():
        for cfg, layer in zip(layers, built, strict=True):
            try:
                x = layer(x)
            except (ValueError, TypeError, AssertionError, IndexError) as error:
                raise SwapError(f'{type_name(cfg["type"])} refuses its input: {error}') from error
    return x


def _build(cfg: Mapping) -> nn.Module:
    cfg = copy.deepcopy(dict(cfg))
    for key in ('init_cfg', 'pretrained'):  # an address of weights; no weights are needed
        if isinstance(cfg.get(key), str | Mapping):
            cfg[key] = None
    try:
        module = MODELS.build(cfg)
    except (ValueError, TypeError, KeyError, AssertionError) as error:
        raise SwapError(f'{type_name(cfg["type"])} cannot be built: {error}') from error
    module.eval()  # returns None in some packages
    return module
