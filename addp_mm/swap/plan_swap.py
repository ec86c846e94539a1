# Copyright (c) addp_mm contributors. Apache-2.0.
"""The whole plan of a swap: which values of a config change so that it has another backbone."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from mmengine.config import Config

from addp_mm.swap.candidate import Candidate, candidate_of
from addp_mm.swap.classifier_plan import classifier_changes
from addp_mm.swap.dense_plan import DensePlan
from addp_mm.swap.expectations import check_swappable
from addp_mm.swap.images_plan import colour_changes, pad_changes, resizes_batches, square_side
from addp_mm.swap.optimizer_plan import optimizer_changes
from addp_mm.swap.plan import Change, SwapError, SwapPlan
from addp_mm.swap.zoo import find_backbone
from addp_mm.swap.zoo_entry import ZooEntry

TASKS = {'mmdet': 'det', 'mmseg': 'seg', 'mmpretrain': 'cls'}
_SMALL = 64
# Positions of a side below which a map says little.
_FEWEST = 4


def plan_swap(cfg: Config, config_name: str, backbone: str) -> SwapPlan:
    """Plan how a config gets another backbone. Nothing is written, and no weights are loaded.

    Args:
        cfg: A config of mmdet, mmsegmentation or mmpretrain. It stays as it is.
        config_name: Its name, as ``_base_`` accepts it.
        backbone: A name of the zoo, ``timm:MODEL``, or the path of a checkpoint of an ADDPViT.

    Raises:
        SwapError: The backbone or the model cannot be served. The message says why.
    """
    scope = cfg.get('default_scope')
    if scope not in TASKS:
        raise SwapError(f'{config_name} has default_scope={scope!r}; swaps serve {", ".join(TASKS)}')
    check_swappable(cfg, config_name)
    entry = find_backbone(backbone)
    candidate = candidate_of(_with_channels(entry, cfg.model.backbone))
    task = TASKS[scope]
    try:
        parts = _classifier(cfg, entry, candidate) if task == 'cls' else _dense(cfg, scope, entry, candidate)
        optimizer, notes = optimizer_changes(cfg, entry, task, parts.is_frozen)
        notes = [*notes, *_frozen_note(cfg.model.backbone, parts.is_frozen)]
    except SwapError as error:
        raise SwapError(f'{config_name} with {backbone}: {error}') from error
    changes = (_imports(cfg), *parts.changes, *_weights(cfg), *colour_changes(cfg, entry, task), *optimizer)
    changes = tuple(_as_written(cfg, change) for change in changes)
    side = parts.divisor * math.ceil(_SMALL / parts.divisor)
    size = (side, side + parts.divisor)
    notes = [*parts.notes, *notes]
    return SwapPlan(
        config_name, scope, task, backbone, changes, tuple(notes), tuple(parts.warnings), parts.divisor, size
    )


def _as_written(cfg: Config, change: Change) -> Change:
    """The change with a plain value, which replaces the old one only if there is one.

    mmengine refuses a dict in the place of a list or of None, unless it replaces the old value.
    """
    node: Any = cfg
    *path, name = change.key.split('.')
    for part in path:
        node = node.get(part) if isinstance(node, Mapping | Config) else None
    exists = isinstance(node, Mapping | Config) and name in node
    is_other = exists and isinstance(change.value, dict) and not isinstance(node[name], Mapping)
    return replace(change, value=_plain(change.value), delete=exists and (change.delete or is_other))


@dataclass(frozen=True)
class _Parts:
    """Changes of model and padding, notes, and the multiple that image sides must be."""

    changes: list[Change]
    notes: list[str]
    divisor: int
    is_frozen: bool = False
    warnings: tuple[str, ...] = ()


def _classifier(cfg: Config, entry: ZooEntry, candidate: Candidate) -> _Parts:
    if cfg.model.get('type') != 'ImageClassifier':
        raise SwapError(f'{cfg.model.get("type")} is no classifier, detector or segmentor: it needs its own backbone')
    size, stride = square_side(cfg, 'cls'), int(candidate.maps.strides[-1])
    changes, is_frozen = classifier_changes(cfg, entry, candidate, size)
    notes = ['the backbone stays frozen, as in the original'] if is_frozen else []
    if size < _FEWEST * stride:
        notes.append(f'images of {size} px give maps of {math.ceil(size / stride)} x {math.ceil(size / stride)} only')
    return _Parts(changes, notes, stride, is_frozen)


def _dense(cfg: Config, scope: str, entry: ZooEntry, candidate: Candidate) -> _Parts:
    task = TASKS[scope]
    plan = DensePlan(cfg, scope, entry, candidate, square_side(cfg, task))
    coarsest = max(plan.choice.maps.strides)
    base = int(candidate.maps.strides[-1])
    halves = any(neck['type'] in ('addp_mm.SimpleFPN', 'addp_mm.FourScaleNeck') for neck in plan.choice.necks)
    divisor = 2 * base if halves and 2 * base <= coarsest else base
    if candidate.is_plain and task == 'det' and resizes_batches(cfg) and base & (base - 1):
        _pad_in_backbone(plan.changes)
    patch = base if candidate.is_plain else 1
    rounds = any(neck['type'] == 'MultiLevelNeck' for neck in plan.choice.necks)
    changes = plan.changes + pad_changes(cfg, task, divisor, coarsest, patch, rounds)
    if not plan.choice.is_whole:
        reason = 'the neck does not use the finest map, so that layers get no gradient'
        changes.append(Change('find_unused_parameters', True, reason))
    return _Parts(changes, plan.notes, divisor, warnings=tuple(_left_out(entry, candidate, plan.choice.indices)))


def _left_out(entry: ZooEntry, candidate: Candidate, indices: Sequence[int]) -> Iterator[str]:
    """A sentence if the last stages of a backbone are not used."""
    used, strides = max(indices), candidate.maps.strides
    if used < len(strides) - 1:
        yield (
            f'stages of {entry.name} after out_indices={candidate.indices[used]} are left out: the heads want no map '
            f'of stride {strides[-1]:g}'
        )


def _frozen_note(stock: Mapping[str, Any], is_frozen: bool) -> list[str]:
    """A sentence if stages of the original backbone are frozen, and none of the new one."""
    stages = stock.get('frozen_stages', -1)
    if is_frozen or not isinstance(stages, int) or stages < 1:
        return []
    return [f'the original freezes {stages} stage(s) (frozen_stages={stages}); the new backbone is trained whole']


def _plain(value: Any) -> Any:
    """A value of dicts, lists and tuples only, without the classes of mmengine's configs."""
    if isinstance(value, Mapping):
        return {key: _plain(child) for key, child in value.items()}
    return type(value)(map(_plain, value)) if isinstance(value, list | tuple) else value


def _pad_in_backbone(changes: list[Change]) -> None:
    """Let an ADDPViT pad images whose sides are changed after the data preprocessor's padding."""
    backbone = changes[0].value
    if backbone['type'] == 'addp_mm.ADDPViT':
        backbone['pad_to_patch'] = True


def _with_channels(entry: ZooEntry, stock: Mapping[str, Any]) -> dict[str, Any]:
    return dict(entry.backbone, in_channels=stock.get('in_channels', 3))


def _imports(cfg: Config) -> Change:
    imports = (cfg.get('custom_imports') or {}).get('imports') or []
    imports = [imports] if isinstance(imports, str) else list(imports)
    reason = 'the tools of mmdet, mmsegmentation and mmpretrain find the backbone'
    names = list(dict.fromkeys(['addp_mm', *imports]))
    return Change('custom_imports', dict(imports=names, allow_failed_imports=False), reason)


def _weights(cfg: Config) -> list[Change]:
    """Weights of the original backbone, or of the whole original model, are not loaded."""
    changes = []
    if cfg.model.get('pretrained'):
        changes.append(Change('model.pretrained', None, 'these weights belong to the original backbone'))
    if cfg.get('load_from'):
        changes.append(Change('load_from', None, 'these weights belong to a model with the original backbone'))
    return changes
