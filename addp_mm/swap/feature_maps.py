# Copyright (c) addp_mm contributors. Apache-2.0.
"""Channels and strides of a backbone's maps, found without its memory and without its weights."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from functools import partial
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
# What is run on the CPU gets smaller images, if they suit all strides.
_CPU_SIZE = 256


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

    @property
    def is_plain(self) -> bool:
        """Whether all maps have one stride, as those of a plain transformer."""
        return len(set(self.strides)) == 1

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


def feature_maps(backbone: Mapping, scope: str = 'mmpretrain') -> FeatureMaps:
    """Channels and strides of the maps that a backbone gives for images of 896 px.

    The backbone is built on PyTorch's meta device, which has shapes but no numbers. A backbone that
    needs numbers is built on the CPU, with the same result. A backbone of fixed size gets images of
    its own ``img_size``.

    Args:
        backbone: Config of any registered backbone.
        scope: Registry in which a type without a package is found. Defaults to 'mmpretrain'.

    Raises:
        SwapError: The backbone cannot be built or does not return maps.
    """
    sizes: list[int | tuple[int, int]] = [PROBE_SIZE]
    if isinstance(backbone.get('img_size'), int | tuple | list):
        sizes.append(backbone['img_size'])
    for size in sizes[:-1]:
        try:
            return _backbone_maps(backbone, size, scope)
        except SwapError:
            continue
    return _backbone_maps(backbone, sizes[-1], scope)


def _backbone_maps(backbone: Mapping, size: int | tuple[int, int], scope: str) -> FeatureMaps:
    height, width = (size, size) if isinstance(size, int) else size
    channels = backbone.get('in_channels', 3)
    try:
        outputs = _outputs(backbone, partial(torch.zeros, (1, channels, height, width)), scope)
    except _NeedsNumbersError:
        height, width = (_CPU_SIZE, _CPU_SIZE) if size == PROBE_SIZE else (height, width)
        outputs = _outputs(backbone, partial(torch.zeros, (1, channels, height, width)), scope, 'cpu')
    return _maps(outputs, height, backbone)


def maps_after(maps: FeatureMaps, necks: Sequence[Mapping], scope: str = 'mmdet') -> FeatureMaps:
    """Channels and strides of the maps after necks.

    Args:
        maps: What the first neck gets.
        necks: Their configs, in their order. If there are none, ``maps`` are returned.
        scope: Registry in which a type without a package is found. Defaults to 'mmdet'.

    Raises:
        SwapError: A neck cannot be built, refuses its input or does not return maps.
    """
    for neck in necks:
        size = PROBE_SIZE
        try:
            outputs = _outputs(neck, partial(_zeros, _shapes(maps, size)), scope)
        except _NeedsNumbersError:
            size = PROBE_SIZE if any(_CPU_SIZE % stride for stride in maps.strides) else _CPU_SIZE
            outputs = _outputs(neck, partial(_zeros, _shapes(maps, size)), scope, 'cpu')
        maps = _maps(outputs, size, neck)
    return maps


def first_used(maps: FeatureMaps, neck: Mapping, scope: str = 'mmdet') -> int:
    """Position of the first map that the output of a neck depends on; an FPN may skip some.

    Args:
        maps: What the neck gets.
        neck: Its config.
        scope: As in :func:`maps_after`.
    """
    with DefaultScope.overwrite_default_scope(scope), _without_memory():
        inputs = tuple(torch.zeros(shape, requires_grad=True) for shape in _shapes(maps, PROBE_SIZE))
        try:
            outputs = _build(neck)(inputs)
            outputs = [outputs] if isinstance(outputs, Tensor) else outputs
            used = torch.autograd.grad(sum(x.sum() for x in outputs), inputs, allow_unused=True)
        except (NotImplementedError, RuntimeError):  # an operation without a rule of shapes
            return neck.get('start_level') or 0
    return next(i for i, grad in enumerate(used) if grad is not None)


def _zeros(shapes: Sequence[tuple[int, ...]], device: str) -> tuple[Tensor, ...]:
    return tuple(torch.zeros(shape, device=device) for shape in shapes)


def _shapes(maps: FeatureMaps, size: int) -> list[tuple[int, int, int, int]]:
    sides = [math.ceil(size / stride) for stride in maps.strides]
    return [(1, channels, side, side) for channels, side in zip(maps.channels, sides, strict=True)]


def _maps(outputs: Any, height: int, cfg: Mapping) -> FeatureMaps:
    outputs = [outputs] if isinstance(outputs, Tensor) else outputs
    if not isinstance(outputs, list | tuple) or not all(isinstance(x, Tensor) and x.ndim == 4 for x in outputs):
        raise SwapError(f'{type_name(cfg["type"])} returns no maps (B, channels, height, width)')
    return FeatureMaps(tuple(x.shape[1] for x in outputs), tuple(height / x.shape[2] for x in outputs))


class _NeedsNumbersError(Exception):
    """An operation has no rule of shapes for the meta device."""


def _outputs(cfg: Mapping, make_input: Callable[..., Any], scope: str, device: str = 'meta') -> Any:
    """Output of a backbone or neck."""
    with DefaultScope.overwrite_default_scope(scope), torch.no_grad():
        try:
            with _without_memory() if device == 'meta' else nullcontext():
                return call(_build(cfg), make_input(device=device), cfg)
        except (NotImplementedError, RuntimeError) as error:
            if device == 'meta':
                raise _NeedsNumbersError(str(error)) from error
            raise SwapError(f'{type_name(cfg["type"])} refuses its input: {error}') from error


def call(module: nn.Module, x: Any, cfg: Mapping) -> Any:
    """Return what a module returns.

    Args:
        module: A backbone or neck.
        x: Its input.
        cfg: Its config, for the error.

    Raises:
        SwapError: It refuses its input.
    """
    try:
        return module(x)
    except (ValueError, TypeError, AssertionError, IndexError) as error:
        raise SwapError(f'{type_name(cfg["type"])} refuses its input: {error}') from error


def build_without_memory(cfg: Mapping, scope: str = 'mmpretrain') -> nn.Module:
    """Build a module on the meta device: shapes, but no numbers.

    Args:
        cfg: Its config. Addresses of weights are ignored.
        scope: As in :func:`feature_maps`.

    Raises:
        SwapError: It cannot be built.
    """
    with DefaultScope.overwrite_default_scope(scope), _without_memory():
        return _build(cfg)


def _build(cfg: Mapping) -> nn.Module:
    cfg = {key: copy.deepcopy(value) for key, value in cfg.items() if key not in ('init_cfg', 'pretrained')}
    try:
        module = MODELS.build(cfg)
    except (ValueError, TypeError, KeyError, AssertionError) as error:
        raise SwapError(f'{type_name(cfg["type"])} cannot be built: {error}') from error
    module.eval()  # returns None in some packages
    return module
