# Copyright (c) addp_mm contributors. Apache-2.0.
"""Which channels in a config are not those of the maps, after its model has failed."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from mmengine.config import Config

from addp_mm.config.nodes import node_at
from addp_mm.swap.expectations import necks_of
from addp_mm.swap.segmentor_heads import heads_of
from addp_mm.swap.watch import Watched

# Names under which necks keep the channels of their maps; the second one is that of FourScaleNeck.
_WIDTHS = ('in_channels', 'embed_dims')
_DETECTOR_PARTS = {
    **dict.fromkeys(('rpn_head', 'bbox_head', 'mask_head', 'panoptic_head'), 'in_channels'),
    'roi_head.bbox_roi_extractor': 'out_channels',
    'roi_head.mask_roi_extractor': 'out_channels',
}


def wrong_channels(cfg: Config, watched: Watched) -> Iterator[str]:
    """Yield a sentence for each neck or head whose channels are not those of the maps that it gets.

    Some parts read only a few of their maps. So call it to explain an error, not to find one.

    Args:
        cfg: The whole config.
        watched: What was seen before the error.
    """
    given = 'the backbone gives'
    necks = necks_of(cfg.model)
    for i, (neck, channels) in enumerate(zip(necks, watched.neck_inputs, strict=False)):
        key = f'model.neck.{i}' if isinstance(cfg.model.neck, list | tuple) else 'model.neck'
        name = next((name for name in _WIDTHS if name in neck), None)
        if name:
            yield from _compared(f'{key}.{name}', neck[name], channels, given, is_one=name == _WIDTHS[0])
        given = f'{key} gives'
    channels = tuple(shape[1] for shape in watched.shapes)
    parts = {'mmseg': _segmentor, 'mmdet': _detector}.get(cfg.get('default_scope') or '', _classifier)
    if channels:
        yield from parts(cfg.model, channels, 'the neck gives' if necks else given)


def _segmentor(model: Mapping, channels: Sequence[int], given: str) -> Iterator[str]:
    for head in heads_of(model, len(channels)):
        key = '.'.join(['model', *map(str, head.path)])
        index = head.cfg.get('in_index', -1)
        index = [index] if isinstance(index, int) else index
        if any(i not in range(-len(channels), len(channels)) for i in index):
            yield f'{key}.in_index={head.cfg["in_index"]}, but {given} {len(channels)} map(s), counted from 0'
            continue
        wanted = head.cfg['in_channels']
        found = [channels[i] for i in head.indices]
        yield from _compared(f'{key}.in_channels', wanted if head.is_list else [wanted], found, given)


def _detector(model: Mapping, channels: Sequence[int], given: str) -> Iterator[str]:
    for path, option in _DETECTOR_PARTS.items():
        node = node_at(model, path)
        if isinstance(node, Mapping) and option in node:
            yield from _compared(f'model.{path}.{option}', node[option], channels, given)


def _classifier(model: Mapping, channels: Sequence[int], given: str) -> Iterator[str]:
    wanted = (model.get('head') or {}).get('in_channels')
    if isinstance(wanted, int):
        yield from _compared('model.head.in_channels', wanted, channels[-1:], given)


def _compared(key: str, wanted: Any, found: Sequence[int], given: str, is_one: bool = False) -> Iterator[str]:
    """Yield a sentence if the channels differ.

    Args:
        key: Dotted key of the wanted channels.
        wanted: One number for all maps, or those of each map in any order.
        found: Channels of the maps.
        given: Where the maps come from, as the start of a sentence.
        is_one: Whether one number may be that of the last map only. Defaults to False.
    """
    if isinstance(wanted, int):
        fits = found[-1] == wanted if is_one else set(found) == {wanted}
    else:
        fits = sorted(wanted) == sorted(found)
    if not fits:
        words = ', '.join(map(str, dict.fromkeys(found) if isinstance(wanted, int) else found))
        is_single = isinstance(wanted, int) and (is_one or len(set(found)) == 1) or len(found) == 1
        old = wanted if isinstance(wanted, int) or len(wanted) != 1 else wanted[0]
        yield f'{key}={old}, but {given} {words} channels: set {key}={found[-1] if is_single else list(found)}'
