# Copyright (c) addp_mm contributors. Apache-2.0.
"""Which maps the heads of a segmentor read, and how they read those of a new backbone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from addp_mm.swap.choose_neck import NeckChoice
from addp_mm.swap.expectations import Expected
from addp_mm.swap.feature_maps import FeatureMaps, build_without_memory
from addp_mm.swap.plan import SwapError

_HEADS = ('decode_head', 'auxiliary_head')
# The coarsest map that a head for one map reads; plain transformers segment at stride 16.
_COARSEST = 16
# Heads for finer maps belong to U-Nets.
_FINEST = 4
# Number of maps that mmsegmentation's JPU concatenates.
_DILATIONS = 4


@dataclass(frozen=True)
class Head:
    """One head of a segmentor.

    Args:
        path: Its position in the model: ``('auxiliary_head', 0)``.
        cfg: Its config.
        indices: Positions of the maps that it reads.
        is_list: Whether it reads several maps.
    """

    path: tuple[str | int, ...]
    cfg: Mapping[str, Any]
    indices: tuple[int, ...]
    is_list: bool

    @property
    def has_finest(self) -> bool:
        """Whether it also reads the first map, as DeepLabV3+ does."""
        return bool(self.cfg.get('c1_in_channels'))


def heads_of(model: Mapping, number: int) -> list[Head]:
    """All heads of a segmentor that read the backbone's maps.

    Args:
        model: Its config.
        number: Number of maps.
    """
    found = []
    for name in _HEADS:
        given = model.get(name) or ()
        many = isinstance(given, list | tuple)
        for i, cfg in enumerate(given if many else [given]):
            path: tuple[str | int, ...] = (name, i) if many else (name,)
            if 'kernel_generate_head' in cfg:
                path, cfg = (*path, 'kernel_generate_head'), cfg['kernel_generate_head']
            channels = cfg.get('in_channels')
            if channels is None:
                continue
            is_list = isinstance(channels, list | tuple)
            default = range(len(channels)) if is_list else -1
            indices = cfg.get('in_index', default)
            indices = [indices] if isinstance(indices, int) else list(indices)
            found.append(Head(path, cfg, tuple(i % number for i in indices), is_list))
    return found


def needs_pyramid(heads: Sequence[Head], maps: FeatureMaps) -> bool:
    """Whether a head reads maps of several strides at once."""
    return any(len({maps.strides[i] for i in head.indices}) > 1 for head in heads)


def neck_of_single_maps(heads: Sequence[Head], maps: FeatureMaps, expected: Expected) -> NeckChoice:
    """Which maps a backbone returns if each head reads one, or several of one stride.

    Args:
        heads: The heads.
        maps: All maps that the backbone can return.
        expected: What the config's own backbone gives.

    Raises:
        SwapError: A head reads finer maps than any backbone of the zoo gives.
    """
    main = heads[0]
    wanted = min(expected.heads.strides[i] for i in main.indices)
    if wanted < _FINEST:
        raise SwapError(
            f'{main.cfg["type"]} reads a map of stride {wanted:g}, as in a U-Net, and the finest map of the backbone '
            f'has stride {min(maps.strides):g}'
        )
    if maps.is_plain and any(head.has_finest for head in heads):
        neck = dict(type='addp_mm.SimpleFPN', in_channels=maps.channels[-1], out_channels=256, scales=(4, 1))
        base = maps.strides[-1]
        gives = FeatureMaps((256, 256), (base / 4, base))
        return NeckChoice((len(maps) - 1,), (neck,), gives, 'the head reads a fine and a coarse map')
    if _is_coarse(main, maps.strides[-1], wanted) and not _takes_several_maps(main):
        return _joined(main, maps, wanted)
    used = {i for head in heads for i in head.indices}
    if maps.is_plain and (len(expected.heads) == 1 or used == {len(expected.heads) - 1}):
        indices: tuple[int, ...] = (len(maps) - 1,)
    else:
        indices = tuple(range(len(maps)))
    return NeckChoice(indices, (), maps.select(indices), 'the heads take the maps as they are')


def _is_coarse(head: Head, stride: float, wanted: float) -> bool:
    """Whether a map is too coarse for a head that reads one map."""
    return not head.is_list and stride > max(wanted, _COARSEST)


def _takes_several_maps(head: Head) -> bool:
    """Whether a head can be built for several maps, which most heads of mmsegmentation resize."""
    try:
        build_without_memory(
            dict(head.cfg, in_channels=[8, 8], in_index=[0, 1], input_transform='resize_concat'), 'mmseg'
        )
    except SwapError:
        return False
    except (RuntimeError, NotImplementedError):  # it needs numbers
        return True
    return True


def _joined(head: Head, maps: FeatureMaps, wanted: float) -> NeckChoice:
    """Join the coarse maps to one of the wanted stride, with as many channels as before."""
    indices = tuple(i for i, stride in enumerate(maps.strides) if stride >= wanted)
    inputs, width = maps.select(indices), head.cfg['in_channels'] // _DILATIONS
    neck = dict(type='JPU', in_channels=inputs.channels, mid_channels=width)
    gives = FeatureMaps((*inputs.channels[:-1], _DILATIONS * width), (*inputs.strides[:-1], inputs.strides[0]))
    return NeckChoice(indices, (neck,), gives, 'JPU joins the coarse maps, as the coarsest alone would be too coarse')


def in_cascade(heads: Sequence[Head], values: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Let the heads of a cascade read the same maps if one of them reads several.

    Each head refines the result of the one before it, at the same positions.

    Args:
        heads: All heads of a segmentor.
        values: What changes in each.
    """
    changed = [dict(one) for one in values]
    cascade = [i for i, head in enumerate(heads) if head.path[0] == 'decode_head' and not head.is_list]
    several = next((values[i] for i in cascade if 'input_transform' in values[i]), {})
    for i in cascade:
        changed[i].update(several)
    return changed


def new_index(head: Head, maps: FeatureMaps, expected: FeatureMaps) -> dict[str, Any]:
    """How a head reads other maps: ``in_index``, ``in_channels`` and what follows from them.

    Args:
        head: The head.
        maps: What it gets.
        expected: What it got from the config's own backbone.
    """
    if len(maps) == len(expected):
        positions = list(head.indices)
    else:  # the last map for the head that reads the last, else the map before it
        last = [i == len(expected) - 1 or head.path[0] == 'decode_head' for i in head.indices]
        before = len(maps) - 2 if len(maps) > 2 else len(maps) - 1
        positions = [len(maps) - 1 if is_last else before for is_last in last]
    changed: dict[str, Any] = {}
    wanted = expected.strides[head.indices[0]]
    if _is_coarse(head, maps.strides[positions[0]], wanted):
        positions = [i for i, stride in enumerate(maps.strides) if stride >= wanted]
        changed['input_transform'] = 'resize_concat'
    if head.is_list or len(positions) > 1:
        values: dict[str, Any] = dict(in_index=positions, in_channels=[maps.channels[i] for i in positions])
    else:
        values = dict(in_index=positions[0], in_channels=maps.channels[positions[0]])
    if head.has_finest:
        values['c1_in_channels'] = maps.channels[0]
    stock = {'in_index': list(head.indices) if head.is_list else head.indices[0], **_listed(head.cfg)}
    return {**changed, **{key: value for key, value in values.items() if not _is_same(key, value, stock, len(maps))}}


def _listed(cfg: Mapping) -> dict[str, Any]:
    return {
        key: list(value) if isinstance(value, tuple) else value
        for key, value in cfg.items()
        if key in ('in_index', 'in_channels', 'c1_in_channels')
    }


def _is_same(key: str, value: Any, stock: Mapping, number: int) -> bool:
    if key == 'in_index' and isinstance(value, int) and isinstance(stock[key], int):
        return value % number == stock[key] % number and -number <= stock[key] < number
    return key in stock and stock[key] == value
