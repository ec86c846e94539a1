# Copyright (c) addp_mm contributors. Apache-2.0.
"""The necks between a new backbone and the heads of a config."""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any

from addp_mm.config.type_names import type_name
from addp_mm.swap.expectations import Expected
from addp_mm.swap.feature_maps import FeatureMaps, first_used, maps_after
from addp_mm.swap.plan import SwapError

# Necks that do no more than make a pyramid of one width. ViTDet's SimpleFPN replaces them.
PYRAMIDS = ('FPN', 'PAFPN', 'ChannelMapper', 'CSPNeXtPAFPN', 'YOLOXPAFPN', 'HRFPN', 'FPN_CARAFE')
# Necks that only resize the maps of a plain transformer; FourScaleNeck, or stages, replace them.
SCALERS = ('Feature2Pyramid', 'MultiLevelNeck', 'FourScaleNeck')
_SCALES = (4, 2, 1, 0.5)
# Factors by which mmsegmentation's MultiLevelNeck resizes maps; all images are padded for them.
_RESIZED = (0.25, 0.5, 1, 2, 4)
_RESIZED_WIDTH = 256


@dataclass(frozen=True)
class NeckChoice:
    """Necks that bring the maps of a backbone to the strides that the heads expect.

    Args:
        indices: Which of the backbone's maps are returned.
        necks: Configs of the necks, in their order.
        maps: What the heads get.
        reason: Why these necks, in one sentence without a full stop.
        is_whole: Whether the heads use all layers of the necks. Defaults to True.
    """

    indices: tuple[int, ...]
    necks: tuple[Mapping[str, Any], ...]
    maps: FeatureMaps
    reason: str
    is_whole: bool = True


def stride_ratio(maps: FeatureMaps) -> float:
    """Stride of a backbone relative to the nearest power of two: 14/16 for patches of 14 px."""
    return maps.strides[-1] / 2 ** round(math.log2(maps.strides[-1]))


def is_pyramid(maps: FeatureMaps) -> bool:
    """Whether each map has twice the stride of the one before it."""
    pairs = pairwise(maps.strides)
    return all(coarse == 2 * fine for fine, coarse in pairs)


def choose_neck(maps: FeatureMaps, expected: Expected, scope: str = 'mmdet') -> NeckChoice:
    """Choose the necks behind a backbone, so that the heads see the strides that they expect.

    A plain transformer gets ViTDet's pyramid instead of a neck that only makes a pyramid. Else the
    maps are brought to the strides of the config's own backbone, and its necks stay. With patches
    of 14 px, 14/16 of each stride is given.

    Args:
        maps: All maps that the backbone can return.
        expected: What the config's own backbone and necks give.
        scope: Package of the config's necks. Defaults to 'mmdet'.

    Raises:
        SwapError: No neck gives these strides.
    """
    first = expected.necks[0] if expected.necks else None
    wanted = _scaled(expected.after_first, stride_ratio(maps))
    if first is None:
        indices, lifted = lift(maps, wanted, scope)
        return _checked(maps, indices, lifted, expected, scope, _lift_reason(lifted))
    if type_name(first['type']) in SCALERS:
        return _without_scaler(maps, first, expected, scope)
    if maps.is_plain and _is_replaced(first, expected, wanted, maps):
        indices, lifted = _simple_fpn(maps, wanted, expected.after_first.channels[0])
        rest = expected.necks[1:]
        replaced = type_name(first['type']).replace('SimpleFPN', 'the original')
        reason = f'SimpleFPN gives the levels of {replaced} from one map of a plain transformer'
        return _checked(maps, indices, (*lifted, *rest), expected, scope, reason)
    fpn = _fpn(maps, wanted, scope) if type_name(first['type']) == 'SimpleFPN' and not maps.is_plain else None
    if fpn is not None:
        reason = 'FPN gives the levels of SimpleFPN from the stages of the backbone'
        return _checked(maps, fpn[0], (*fpn[1], *expected.necks[1:]), expected, scope, reason)
    errors: list[SwapError] = []
    for start in _starts(first, maps, expected.backbone, scope):
        inputs = expected.backbone.select(range(start, len(expected.backbone)))
        try:
            indices, lifted = lift(maps, _scaled(inputs, stride_ratio(maps)), scope)
            given = maps_after(maps.select(indices), lifted, scope)
            necks = (*lifted, _with_inputs(first, inputs, given, start), *expected.necks[1:])
            choice = _checked(maps, indices, necks, expected, scope, _lift_reason(lifted, type_name(first['type'])))
            return replace(choice, is_whole=not lifted or not errors)
        except SwapError as error:
            errors.append(error)
    raise errors[-1]


def lift(
    maps: FeatureMaps, wanted: FeatureMaps, scope: str = 'mmdet'
) -> tuple[tuple[int, ...], tuple[Mapping[str, Any], ...]]:
    """Bring maps to other strides.

    Args:
        maps: All maps that the backbone can return.
        wanted: The strides; its channels are those of a config's own backbone.
        scope: Package of the config's necks. Defaults to 'mmdet'.

    Returns:
        Which of ``maps`` are used, and the necks, if any, that give the strides.

    Raises:
        SwapError: No neck gives them.
    """
    base, strides = maps.strides[-1], wanted.strides
    if set(strides) == {base} and len(strides) <= maps.strides.count(base):
        return tuple(range(len(maps) - len(strides), len(maps))), ()
    if len(set(strides)) == len(strides) and set(strides) <= set(maps.strides):
        last = {stride: i for i, stride in enumerate(maps.strides)}
        return tuple(last[stride] for stride in strides), ()
    pyramid = tuple(base / scale for scale in _SCALES)
    has_end = strides == pyramid[-len(strides) :] and (len(strides) == 4 or not maps.is_plain)
    if len(maps) == 4 and has_end and _fits_four_scales(maps, pyramid):
        return (0, 1, 2, 3), (_four_scales(maps, 4 - len(strides)),)
    if strides == pyramid[:3] and len(maps) == 4 and not maps.is_plain:
        indices = (0, 1, 3)  # the last stage, not the one before it, has the strongest features
        if _fits_four_scales(maps.select(indices), pyramid[:3]):
            return indices, (_four_scales(maps.select(indices), 0),)
    if maps.is_plain and is_pyramid(wanted):
        return _simple_fpn(maps, wanted, 256)
    is_resized = scope == 'mmseg' and len(maps) == len(strides)
    factors = [stride / output for stride, output in zip(maps.strides, strides, strict=True)] if is_resized else []
    if factors and all(factor in _RESIZED for factor in factors):
        neck = dict(type='MultiLevelNeck', in_channels=list(maps.channels), out_channels=_RESIZED_WIDTH, scales=factors)
        return tuple(range(len(maps))), (neck,)
    raise SwapError(
        f'the heads or their neck want maps of {_strides(strides)}, and the backbone gives '
        f'{_strides(maps.strides)}: there is no neck from these to those'
    )


def _fits_four_scales(maps: FeatureMaps, pyramid: Sequence[float]) -> bool:
    return all(stride / output in _SCALES for stride, output in zip(maps.strides, pyramid, strict=True))


def _four_scales(maps: FeatureMaps, start_level: int) -> dict:
    neck: dict[str, Any] = dict(type='addp_mm.FourScaleNeck')
    if maps.is_plain:
        neck.update(embed_dims=maps.channels[0])
    else:
        neck.update(embed_dims=list(maps.channels), strides=list(maps.strides))
    return dict(neck, start_level=start_level) if start_level else neck


def _simple_fpn(
    maps: FeatureMaps, wanted: FeatureMaps, out_channels: int
) -> tuple[tuple[int, ...], tuple[Mapping[str, Any], ...]]:
    """ViTDet's pyramid from the last map."""
    scales = [maps.strides[-1] / stride for stride in wanted.strides]
    made = tuple(int(scale) if scale >= 1 else scale for scale in scales if scale >= min(_SCALES))
    if not made or any(scale not in _SCALES for scale in made):
        raise SwapError(
            f'the heads want maps of {_strides(wanted.strides)}, and SimpleFPN resizes the stride '
            f'{maps.strides[-1]:g} of the backbone by 4, 2, 1 and 1/2 only'
        )
    neck: dict[str, Any] = dict(type='addp_mm.SimpleFPN', in_channels=maps.channels[-1])
    if out_channels != 256:
        neck['out_channels'] = out_channels
    if made != _SCALES:
        neck['scales'] = made
    if len(made) < len(scales):
        neck['num_outs'] = len(scales)
    return (len(maps) - 1,), (neck,)


def _fpn(
    maps: FeatureMaps, wanted: FeatureMaps, scope: str
) -> tuple[tuple[int, ...], tuple[Mapping[str, Any], ...]] | None:
    """FPN on the stages of a backbone; None if they do not reach three levels from the first one.

    Levels that are coarser than the stages are pooled, as in SimpleFPN.
    """
    for count in (4, 3):
        try:
            indices, lifted = lift(maps, wanted.select(range(min(count, len(wanted)))))
        except SwapError:
            continue
        channels = maps_after(maps.select(indices), lifted, scope).channels
        fpn = dict(type='FPN', in_channels=list(channels), out_channels=wanted.channels[0], num_outs=len(wanted))
        return indices, (*lifted, fpn)
    return None


def _without_scaler(maps: FeatureMaps, scaler: Mapping, expected: Expected, scope: str) -> NeckChoice:
    """Other necks instead of one that only resizes maps; those behind it stay."""
    indices, lifted = lift(maps, _scaled(expected.after_first, stride_ratio(maps)), scope)
    kept = {key: scaler[key] for key in ('norm_cfg', 'init_cfg') if key in scaler}
    lifted = tuple(
        {**neck, **kept} if type_name(neck['type']) == type_name(scaler['type']) else neck for neck in lifted
    )
    rest = expected.necks[1:]
    if rest:
        given = maps_after(maps.select(indices), lifted, scope)
        rest = (_with_inputs(rest[0], expected.after_first, given, 0), *rest[1:])
    return _checked(maps, indices, (*lifted, *rest), expected, scope, _lift_reason(lifted))


def _is_replaced(neck: Mapping, expected: Expected, wanted: FeatureMaps, maps: FeatureMaps) -> bool:
    """Whether ViTDet's pyramid replaces a neck: any pyramid, and one of patches of another size."""
    is_made = type_name(neck['type']) in PYRAMIDS or (
        type_name(neck['type']) == 'SimpleFPN'
        and expected.backbone.strides[-1] * stride_ratio(maps) != maps.strides[-1]
    )
    return is_made and is_pyramid(wanted) and len(set(wanted.channels)) == 1


def _starts(neck: Mapping, maps: FeatureMaps, inputs: FeatureMaps, scope: str) -> tuple[int, ...]:
    """Numbers of maps to leave out at the start, to be tried in turn.

    A neck may get maps that it does not use. Layers that make such maps would get no gradient; a
    pyramid of stages has no such layers.
    """
    start = first_used(inputs, neck, scope)
    is_needless = start and (not is_pyramid(maps) or 'start_level' not in neck)
    return (start, 0) if is_needless else (0,)


def _with_inputs(neck: Mapping, old: FeatureMaps, new: FeatureMaps, start: int) -> dict:
    """A neck's config for maps with other channels, without the first ``start`` maps."""
    changed = copy.deepcopy(dict(neck))
    if start and 'start_level' in neck:
        changed['start_level'] = 0
        if (changed.get('end_level') or -1) > 0:
            changed['end_level'] -= start
    channels = neck.get('in_channels')
    if isinstance(channels, int):
        if channels in old.channels:
            changed['in_channels'] = new.channels[old.channels.index(channels)]
        return changed
    if channels is None:
        return changed
    given = list(channels)[len(channels) - len(old) :] if len(channels) > len(old) else list(channels)
    changed['in_channels'] = type(channels)(_replaced(given, old, new))  # JPU takes a tuple only
    outs = neck.get('out_channels')
    if isinstance(outs, list | tuple) and list(outs[: len(given)]) == list(given):  # SSD passes its inputs on
        changed['out_channels'] = [*changed['in_channels'], *outs[len(given) :]]
    return changed


def _replaced(channels: list[int], old: FeatureMaps, new: FeatureMaps) -> list[int]:
    """Channels of the new maps at the positions of ``channels`` among the old ones."""
    for before, after in ((old.channels, new.channels), (old.channels[::-1], new.channels[::-1])):
        for start in range(len(before) - len(channels) + 1):
            if list(before[start : start + len(channels)]) == channels:
                return list(after[start : start + len(channels)])
    raise SwapError(
        f'a neck has in_channels={channels}, which are not the channels of its backbone, {list(old.channels)}'
    )


def _checked(
    maps: FeatureMaps,
    indices: tuple[int, ...],
    necks: Sequence[Mapping[str, Any]],
    expected: Expected,
    scope: str,
    reason: str,
) -> NeckChoice:
    """The choice, after a check that the heads get the expected strides."""
    given = maps_after(maps.select(indices), necks, scope)
    wanted = _scaled(expected.heads, stride_ratio(maps)).strides
    if len(wanted) != len(given) or any(abs(a - b) > 0.02 * a for a, b in zip(wanted, given.strides, strict=True)):
        raise SwapError(
            f'the heads want maps of {_strides(wanted)}, and {first_type(necks)} would give {_strides(given.strides)}'
        )
    return NeckChoice(indices, tuple(necks), given, reason)


def first_type(necks: Sequence[Mapping]) -> str:
    """Type of the first neck; 'the backbone' if there is none."""
    return type_name(necks[0]['type']) if necks else 'the backbone'


def _lift_reason(lifted: Sequence[Mapping], kept: str = '') -> str:
    if lifted and kept:
        return f'{first_type(lifted)} brings the maps to the strides of the original backbone; {kept} stays'
    if lifted:
        return f'{first_type(lifted)} brings the maps to the strides that the heads expect'
    return f'{kept} stays and takes the channels of the new maps' if kept else 'the heads take the maps as they are'


def _scaled(maps: FeatureMaps, ratio: float) -> FeatureMaps:
    return FeatureMaps(maps.channels, tuple(stride * ratio for stride in maps.strides))


def _strides(strides: Sequence[float]) -> str:
    return f'stride{"s" * (len(strides) > 1)} {", ".join(f"{stride:g}" for stride in strides)}'
