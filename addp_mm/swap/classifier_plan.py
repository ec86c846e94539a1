# Copyright (c) addp_mm contributors. Apache-2.0.
"""Changes of the model of a classifier: backbone, neck and the head's width."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from mmengine.config import Config
from torch import Tensor, nn

from addp_mm.config.type_names import type_name
from addp_mm.swap.backbone_cfg import WITH_SIZE, finished, kept, rounded_size
from addp_mm.swap.candidate import Candidate
from addp_mm.swap.expectations import necks_of
from addp_mm.swap.feature_maps import build_without_memory, call
from addp_mm.swap.plan import Change, SwapError
from addp_mm.swap.zoo_entry import ZooEntry

# Names under which necks keep the width of their input.
_WIDTHS = ('in_channels', 'input_features', 'in_features', 'num_features')
_NO_FEATURES = 'its head takes neither one vector nor one map of each image, so it belongs to its own backbone'


@dataclass(frozen=True)
class Features:
    """What the head of a classifier gets from its own backbone.

    Args:
        width: Number of channels before the first neck that stays.
        head_width: Number of channels that the head gets.
        is_map: Whether the head gets a map; else a vector.
        first_kept: Position of the first neck that gets vectors, or their number.
        out_type: ``out_type`` of the backbone, if it has one.
        is_frozen: Whether the backbone is not trained.
    """

    width: int
    head_width: int
    is_map: bool
    first_kept: int
    out_type: str | None
    is_frozen: bool


def head_features(cfg: Config, size: int) -> Features:
    """Find what the head of a classifier gets, by running its backbone and necks without memory.

    Args:
        cfg: The whole config.
        size: Side of the images in pixels.

    Raises:
        SwapError: The head gets something else than one vector or one map.
    """
    backbone = build_without_memory(cfg.model.backbone)
    necks = necks_of(cfg.model)
    x = _run(backbone, size, cfg.model.backbone)
    width, first_kept = x[-1].shape[1], 0
    with torch.device('meta'), torch.no_grad():
        for i, neck in enumerate(necks):
            was_vector = x[-1].ndim == 2
            x = _features(call(build_without_memory(neck), x, neck), neck)
            if not was_vector and x[-1].ndim == 2:
                width, first_kept = x[-1].shape[1], i + 1
    frozen = not any(parameter.requires_grad for parameter in backbone.parameters())
    return Features(width, x[-1].shape[1], x[-1].ndim == 4, first_kept, getattr(backbone, 'out_type', None), frozen)


def _run(backbone: nn.Module, size: int, cfg: Mapping) -> tuple[Tensor, ...]:
    own = cfg.get('img_size', size)
    error: Exception | None = None
    for side in (size, own[0] if isinstance(own, list | tuple) else own):
        x = torch.zeros(1, cfg.get('in_channels', 3), side, side, device='meta')
        try:
            with torch.device('meta'), torch.no_grad():
                return _features(call(backbone, x, cfg), cfg)
        except (SwapError, RuntimeError) as failed:
            error = failed
    raise SwapError(f'{type_name(cfg["type"])} cannot process images of {size} px: {error}')


def _features(outputs: Any, cfg: Mapping) -> tuple[Tensor, ...]:
    outputs = (outputs,) if isinstance(outputs, Tensor) else tuple(outputs)
    if not outputs or not isinstance(outputs[-1], Tensor) or outputs[-1].ndim not in (2, 4):
        raise SwapError(f'{type_name(cfg["type"])}: {_NO_FEATURES}')
    return outputs


def classifier_changes(cfg: Config, entry: ZooEntry, candidate: Candidate, size: int) -> tuple[list[Change], bool]:
    """Changes of a classifier's model.

    Args:
        cfg: The whole config.
        entry: The backbone.
        candidate: Its maps.
        size: Side of the images in pixels.

    Returns:
        The changes, and whether the backbone stays frozen.

    Raises:
        SwapError: The head belongs to its own backbone.
    """
    features = head_features(cfg, size)
    width = candidate.maps.channels[-1]
    backbone = _backbone(cfg, entry, candidate, features, size)
    changes = [Change('model.backbone', backbone, f'{entry.name} instead of the original backbone', delete=True)]
    necks = necks_of(cfg.model)
    new_necks = [dict(neck) for neck in necks[features.first_kept :]]
    if new_necks:
        new_necks[0] = _with_width(new_necks[0], features.width, width)
    if [dict(neck) for neck in necks] != new_necks:
        changes.append(_neck_change(new_necks))
    changes += _head_changes(cfg.model, features.head_width, _width_after(new_necks, width, features.is_map))
    return changes, features.is_frozen


def _neck_change(necks: list[dict]) -> Change:
    if not necks:
        return Change('model.neck', None, 'the backbone returns the mean of its map')
    value = necks[0] if len(necks) == 1 else necks
    return Change('model.neck', value, 'the neck takes the channels of the new backbone', delete=len(necks) == 1)


def _width_after(necks: list[dict], width: int, is_map: bool) -> int:
    """Channels that the head gets after necks."""
    shape = (1, width, 4, 4) if is_map else (1, width)
    with torch.device('meta'), torch.no_grad():
        x: tuple[Tensor, ...] = (torch.zeros(shape),)
        for neck in necks:
            x = _features(call(build_without_memory(neck), x, neck), neck)
    return x[-1].shape[1]


def _backbone(cfg: Config, entry: ZooEntry, candidate: Candidate, features: Features, size: int) -> dict[str, Any]:
    options: dict[str, Any] = dict(out_type='featmap' if features.is_map else 'avg_featmap')
    if features.out_type == 'cls_token' and not features.is_map and _has_class_token(entry):
        options['out_type'] = 'cls_token'
    if entry.backbone['type'] in WITH_SIZE:
        options['img_size'] = rounded_size(size, candidate)
    if entry.backbone['type'] == 'addp_mm.ADDPViT':
        if size % candidate.maps.strides[-1]:
            options['pad_to_patch'] = True
    elif not candidate.is_plain:
        options['out_indices'] = (candidate.indices[-1],)
    if features.is_frozen:
        options['frozen_stages'] = candidate.depth
    return finished(entry, {**options, **kept(cfg.model.backbone)}, 'cls')


def _has_class_token(entry: ZooEntry) -> bool:
    try:
        build_without_memory(dict(entry.backbone, out_type='cls_token'))
    except SwapError:
        return False
    return True


def _with_width(neck: Mapping, old: int, new: int) -> dict:
    changed = copy.deepcopy(dict(neck))
    changed.update({key: new for key in _WIDTHS if neck.get(key) == old})
    return changed


def _head_changes(model: Mapping, old: int, new: int) -> list[Change]:
    head = model.get('head') or {}
    found = list(_widths('model.head', head, old))
    if not found:
        raise SwapError(f'{type_name(head.get("type")) or "the model"} has no in_channels={old} that could follow')
    return [] if old == new else [Change(key, new, 'channels of the new backbone') for key in found]


def _widths(key: str, node: Any, width: int) -> list[str]:
    """Keys of ``in_channels`` with a value, in a head and its parts."""
    if not isinstance(node, Mapping):
        return []
    found = [f'{key}.in_channels'] if node.get('in_channels') == width else []
    return found + [one for name, child in node.items() for one in _widths(f'{key}.{name}', child, width)]
