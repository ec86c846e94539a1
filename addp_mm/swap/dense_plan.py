# Copyright (c) addp_mm contributors. Apache-2.0.
"""Changes of the model of a detector or a segmentor: backbone, neck and heads."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from mmengine.config import Config

from addp_mm.config.type_names import type_name
from addp_mm.swap.backbone_cfg import backbone_cfg
from addp_mm.swap.candidate import Candidate
from addp_mm.swap.choose_neck import NeckChoice, choose_neck, stride_ratio
from addp_mm.swap.expectations import Expected, expected_maps
from addp_mm.swap.feature_maps import FeatureMaps
from addp_mm.swap.plan import Change, SwapError
from addp_mm.swap.segmentor_heads import heads_of, in_cascade, neck_of_single_maps, needs_pyramid, new_index
from addp_mm.swap.zoo_entry import ZooEntry

# Names under which heads of detectors keep the strides of their maps.
_STRIDES = ('strides', 'featmap_strides')
# Parts of a model that are no heads.
_NO_HEADS = ('backbone', 'neck', 'data_preprocessor', 'train_cfg', 'test_cfg')


class DensePlan:
    """The model part of a swap in mmdet or mmsegmentation.

    Args:
        cfg: The whole config.
        scope: 'mmdet' or 'mmseg'.
        entry: The backbone.
        candidate: Its maps.
        size: Side of the usual images in pixels.

    Attributes:
        choice: The necks and the maps behind them.
        changes: The changes of the model.
        notes: Sentences about what stays or differs.
    """

    def __init__(self, cfg: Config, scope: str, entry: ZooEntry, candidate: Candidate, size: int) -> None:
        self.model = cfg.model
        self.scope = scope
        self.expected = expected_maps(cfg, scope)
        self.choice = self._choose(candidate)
        task = 'det' if scope == 'mmdet' else 'seg'
        backbone = backbone_cfg(entry, candidate, task, cfg.model.backbone, self.choice.indices, size)
        self.changes = [Change('model.backbone', backbone, _backbone_reason(entry, backbone), delete=True)]
        self.changes += neck_changes(self.expected, self.choice, isinstance(self.model.get('neck'), list | tuple))
        self.notes: list[str] = []
        self.changes += self._segmentor_heads() if scope == 'mmseg' else self._detector_heads()
        self.changes += self._strides(stride_ratio(candidate.maps)) if scope == 'mmdet' else []

    def _choose(self, candidate: Candidate) -> NeckChoice:
        if self.scope == 'mmseg' and not self.expected.necks:
            heads = heads_of(self.model, len(self.expected.heads))
            if not heads:
                raise SwapError('the heads name no in_channels, so they belong to their own backbone')
            if not needs_pyramid(heads, self.expected.heads):
                return neck_of_single_maps(heads, candidate.maps, self.expected)
        choice = choose_neck(candidate.maps, self.expected, self.scope)
        return _one_width(choice, self.expected) if self.scope == 'mmdet' else choice

    def _segmentor_heads(self) -> list[Change]:
        changes: dict[str, Change] = {}
        heads = heads_of(self.model, len(self.expected.heads))
        found = [new_index(head, self.choice.maps, self.expected.heads) for head in heads]
        for head, values in zip(heads, in_cascade(heads, found), strict=True):
            name, *rest = head.path
            if not values:
                continue
            reason = 'channels and positions of the new maps'
            if 'input_transform' in values:
                reason = 'the head reads all maps from its own stride, as the coarsest alone would be too coarse'
            if rest and isinstance(rest[0], int):
                given = changes[f'model.{name}'].value if f'model.{name}' in changes else self.model[name]
                listed = [dict(one) for one in copy.deepcopy(given)]
                target = listed[rest[0]]
                for key in rest[1:]:
                    target = target[key]
                target.update(values)
                changes[f'model.{name}'] = Change(f'model.{name}', listed, reason)
            else:
                key = '.'.join(['model', *map(str, head.path)])
                changes[key] = Change(key, values, reason)
            self._note_stride(head.path, values, head.indices)
        return list(changes.values())

    def _note_stride(self, path: Sequence, values: Mapping[str, Any], old: Sequence[int]) -> None:
        position = values.get('in_index', old[-1])
        if isinstance(position, int) and position < len(self.choice.maps):
            new, wanted = self.choice.maps.strides[position], self.expected.heads.strides[old[-1]]
            if new > wanted and path[0] == 'decode_head':
                self.notes.append(f'the head reads a map of stride {new:g}; the original has {wanted:g}')

    def _detector_heads(self) -> list[Change]:
        old, new = self.expected.heads, self.choice.maps
        if old.channels == new.channels:
            return []
        found = [
            Change(f'model.{key}', list(new.channels), 'channels of the new maps')
            for key, value in _heads_values(self.model, ('in_channels',))
            if isinstance(value, list | tuple) and list(value) == list(old.channels)
        ]
        if not found:
            raise SwapError(f'the heads take {old} and have no in_channels that could follow; the new maps are {new}')
        return found

    def _strides(self, ratio: float) -> list[Change]:
        """Strides and sizes of anchors in the heads for patches of 14 px."""
        if ratio == 1:
            return []
        patch = f'{16 * ratio:g}'
        changes = []
        for name, part in self.model.items():
            if name in _NO_HEADS or name == 'panoptic_head':  # Mask2Former's strides are relative
                continue
            scaled = copy.deepcopy(part)
            _scale_strides(scaled, ratio, set(self.expected.heads.strides))
            for key, value in _differences(part, scaled, f'model.{name}'):
                is_size = key.endswith('base_sizes')
                reason = f'with patches of {patch} px the maps have {patch}/16 of the strides'
                changes.append(Change(key, value, 'anchors keep their sizes in pixels' if is_size else reason))
        return changes


def _scale_strides(node: Any, ratio: float, strides: set[float]) -> None:
    """Multiply all strides of maps in a part of a model, in place."""
    if isinstance(node, list | tuple):
        for child in node:
            _scale_strides(child, ratio, strides)
    if not isinstance(node, Mapping):
        return
    for name, child in list(node.items()):
        values = list(child) if isinstance(child, list | tuple) else []
        if name in _STRIDES and values and all(isinstance(one, int | float) and one in strides for one in values):
            node[name] = [_whole(stride * ratio) for stride in values]  # type: ignore[index]  # a ConfigDict
            if type_name(node.get('type')) == 'AnchorGenerator':
                node.setdefault('base_sizes', values)  # type: ignore[attr-defined]
        else:
            _scale_strides(child, ratio, strides)


def _differences(old: Any, new: Any, key: str) -> Iterator[tuple[str, Any]]:
    """Keys and values in which a changed config differs; lists are whole values."""
    if isinstance(old, Mapping) and isinstance(new, Mapping):
        for name, value in new.items():
            yield from _differences(old.get(name), value, f'{key}.{name}')
    elif not _equal(old, new):
        yield key, new


def neck_changes(expected: Expected, choice: NeckChoice, is_list: bool) -> list[Change]:
    """The change from the necks of a config, which may be in a list, to the chosen ones."""
    old, new = list(expected.necks), [copy.deepcopy(dict(neck)) for neck in choice.necks]
    if [dict(neck) for neck in old] == new:
        return []
    if not new:
        return [Change('model.neck', None, choice.reason)]
    if len(new) > 1 or is_list:
        return [Change('model.neck', new, choice.reason)]
    if len(old) == 1 and old[0]['type'] == new[0]['type'] and set(old[0]) == set(new[0]):
        changed = {key: value for key, value in new[0].items() if not _equal(old[0].get(key), value)}
        return [Change(f'model.neck.{key}', value, choice.reason) for key, value in changed.items()]
    return [Change('model.neck', new[0], choice.reason, delete=bool(old))]


def _one_width(choice: NeckChoice, expected: Expected) -> NeckChoice:
    """Give heads on a single map, such as those of Faster R-CNN C4, the channels that they have."""
    channels = expected.heads.channels
    if expected.necks or len(channels) != 1 or choice.maps.channels == channels:
        return choice
    mapper = dict(
        type='ChannelMapper',
        in_channels=list(choice.maps.channels),
        out_channels=channels[0],
        kernel_size=1,
        act_cfg=None,
    )
    reason = f'the heads take {channels[0]} channels of one map'
    return NeckChoice(choice.indices, (*choice.necks, mapper), FeatureMaps(channels, choice.maps.strides), reason)


def _backbone_reason(entry: ZooEntry, backbone: Mapping[str, Any]) -> str:
    if backbone.get('window_size'):
        return f"{entry.name} with ViTDet's windows, as global attention over images of this size is costly"
    return f'{entry.name} instead of the original backbone'


def _heads_values(node: Any, names: Sequence[str], key: str = '') -> Iterator[tuple[str, Any]]:
    """Values under ``names`` in all parts of a model but backbone and neck, with dotted keys."""
    if not isinstance(node, Mapping):
        return
    for name, child in node.items():
        if not key and name in _NO_HEADS:
            continue
        path = f'{key}.{name}' if key else name
        if name in names:
            yield path, child
        yield from _heads_values(child, names, path)


def _whole(stride: float) -> int | float:
    return int(stride) if stride == int(stride) else stride


def _equal(a: Any, b: Any) -> bool:
    return (list(a) if isinstance(a, tuple) else a) == (list(b) if isinstance(b, tuple) else b)
