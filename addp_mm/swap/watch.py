# Copyright (c) addp_mm contributors. Apache-2.0.
"""Watch a training step: the maps that heads get, the strides they expect, idle parameters."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any

from torch import Tensor, nn

_EXTRACTORS = ('bbox_roi_extractor', 'mask_roi_extractor')


class Watched:
    """Watches a model while the block runs.

    Args:
        model: A classifier, detector or segmentor.

    Attributes:
        height: That of the images in pixels, as the backbone gets them.
        shapes: Shape of each map that the heads get.
        neck_inputs: Channels of the maps that each neck gets, in the order of the necks.
        idle: Names of trained parameters that got no gradient.
    """

    def __init__(self, model: nn.Module) -> None:
        self.model = model
        self.height = 0
        self.shapes: tuple[tuple[int, ...], ...] = ()
        self.neck_inputs: list[tuple[int, ...]] = []
        self._reached: set[str] = set()
        self._handles: list[Any] = []

    def __enter__(self) -> Watched:
        model: Any = self.model
        neck = model.neck if getattr(model, 'with_neck', False) else None
        self._handles = [
            model.backbone.register_forward_pre_hook(self._see_images),
            (neck or model.backbone).register_forward_hook(self._see_maps),
        ]
        for one in neck if isinstance(neck, nn.Sequential) else [neck] if neck else []:  # a list is a chain
            self._handles.append(one.register_forward_pre_hook(self._see_neck_inputs))
        for name, parameter in self.model.named_parameters():
            if parameter.requires_grad:
                self._handles.append(parameter.register_hook(lambda _, name=name: self._reached.add(name)))
        return self

    def __exit__(self, *_: object) -> None:
        for handle in self._handles:
            handle.remove()

    def _see_images(self, _: nn.Module, inputs: Any) -> None:
        self.height = next(_tensors(inputs)).shape[2]

    def _see_neck_inputs(self, _: nn.Module, inputs: Any) -> None:
        self.neck_inputs.append(tuple(one.shape[1] for one in _tensors(inputs)))

    def _see_maps(self, _: nn.Module, __: object, output: Any) -> None:
        self.shapes = self.shapes or tuple(tuple(one.shape) for one in _tensors(output))

    @property
    def maps(self) -> tuple[tuple[int, float | None], ...]:
        """Channels and stride of each map; the stride is None of features without a height.

        Sides of coarse maps are rounded up. A stride counts as twice the one before it if that
        gives the same side.
        """
        found: list[tuple[int, float | None]] = []
        for shape in self.shapes:
            stride = None
            if len(shape) == 4:
                before = found[-1][1] if found else None
                doubled = before and math.ceil(self.height / (2 * before)) == shape[2]
                stride = 2 * before if before and doubled else round(self.height / shape[2], 2)
            found.append((shape[1], stride))
        return tuple(found)

    @property
    def idle(self) -> tuple[str, ...]:
        """Names of trained parameters without a gradient."""
        parameters = self.model.named_parameters()
        return tuple(name for name, one in parameters if one.requires_grad and name not in self._reached)

    def wrong_strides(self) -> Iterator[str]:
        """Yield a sentence for each head whose strides are not those of the maps."""
        for name, expected in expected_strides(self.model):
            heights = [shape[2] for shape in self.shapes if len(shape) == 4]
            pairs = zip(expected, heights, strict=False)
            if len(expected) > len(heights) or any(abs(self.height / stride - height) >= 1 for stride, height in pairs):
                given = _listed([stride for _, stride in self.maps if stride])
                yield f'{name} expects maps of strides {_listed(expected)}, and gets {given or "none"}'

    def wrong_levels(self) -> Iterator[str]:
        """Yield a sentence for each head that is made for another number of maps.

        RoI extractors may leave out coarse maps.
        """
        maps = [stride for _, stride in self.maps if stride]
        source = 'the neck' if getattr(self.model, 'with_neck', False) else 'the backbone'
        given = f'{source} gives {len(maps)}, of stride {_listed(maps)}' if maps else f'{source} gives none'
        for name, expected in expected_strides(self.model):
            if len(expected) > len(maps) or (len(expected) < len(maps) and not _is_extractor(name)):
                yield f'{name} expects {len(expected)} maps, of stride {_listed(expected)}, and {given}'


def expected_strides(model: nn.Module) -> Iterator[tuple[str, tuple[float, ...]]]:
    """Yield names of heads and RoI extractors, and the strides for which they are made."""
    for name, module in model.named_modules():
        generator: Any = getattr(module, 'prior_generator', None)
        if hasattr(generator, 'strides'):
            yield name, tuple(stride[0] if isinstance(stride, tuple) else stride for stride in generator.strides)
        elif _is_extractor(name) and hasattr(module, 'featmap_strides'):
            yield name, tuple(module.featmap_strides)


def _is_extractor(name: str) -> bool:
    return name.rstrip('.0123456789').endswith(_EXTRACTORS)


def _listed(strides: Sequence[float]) -> str:
    return ', '.join(f'{stride:g}' for stride in strides)


def _tensors(node: Any) -> Iterator[Tensor]:
    if isinstance(node, Tensor):
        yield node
    elif isinstance(node, list | tuple):
        for part in node:
            yield from _tensors(part)
