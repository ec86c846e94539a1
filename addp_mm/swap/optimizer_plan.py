# Copyright (c) addp_mm contributors. Apache-2.0.
"""Changes of the optimizer, so that it suits the new backbone."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

from mmengine.config import Config

from addp_mm.config.type_names import type_name
from addp_mm.swap.plan import Change
from addp_mm.swap.recipes import BATCHES
from addp_mm.swap.zoo import ZooEntry

CONSTRUCTOR = 'addp_mm.LayerDecayOptimWrapperConstructor'
# Options of other constructors that ours has too.
_KEPT = ('norm_decay_mult', 'bias_decay_mult', 'flat_decay_mult')
# Parts of names that only other backbones have.
_OF_BACKBONE = ('absolute_pos_embed', 'relative_position_bias_table', 'pos_embed', 'cls_token', 'backbone.', '.norm')


def optimizer_changes(cfg: Config, entry: ZooEntry, task: str) -> tuple[list[Change], list[str]]:
    """AdamW with layer decay instead of the optimizer of another backbone.

    An AdamW stays, with its learning rate. A config that lowers the backbone's learning rate by
    itself, as DETRs do, keeps its whole optimizer.

    Args:
        cfg: The whole config.
        entry: The backbone.
        task: 'det', 'seg' or 'cls'.

    Returns:
        The changes, and sentences about what stays.
    """
    wrapper = cfg.get('optim_wrapper')
    if not isinstance(wrapper, Mapping) or not isinstance(wrapper.get('optimizer'), Mapping):
        return [], ['the config has no optim_wrapper.optimizer: choose one']
    paramwise = wrapper.get('paramwise_cfg') or {}
    if entry.recipes is None:
        changes = (
            [] if not _of_other_backbone(wrapper) else [_constructor(1.0, paramwise, 'layer decay of another backbone')]
        )
        return changes, [f'the optimizer stays: {type_name(wrapper["optimizer"]["type"])}']
    if 'lr_mult' in (paramwise.get('custom_keys') or {}).get('backbone', {}):
        factor = paramwise['custom_keys']['backbone']['lr_mult']
        return [], [f'the optimizer stays: it gives the backbone {factor:g} of the learning rate']
    recipe = entry.recipes[task]
    changes, lr = [], None
    old = wrapper['optimizer']
    if type_name(old['type']) not in ('AdamW', 'ReparamAdamW'):
        lr = recipe.lr * _batch_size(cfg, task) / BATCHES[task]
        optimizer = dict(type='AdamW', lr=lr, betas=(0.9, 0.999), weight_decay=recipe.weight_decay)
        reason = f'AdamW instead of {type_name(old["type"])}: {recipe.lr:g} for {BATCHES[task]} images, {recipe.source}'
        changes.append(Change('optim_wrapper.optimizer', optimizer, reason, delete=True))
    reason = (
        'layers next to the image learn more slowly'
        if recipe.layer_decay < 1
        else 'norms and biases without weight decay'
    )
    changes += [
        Change('optim_wrapper.constructor', CONSTRUCTOR, f'{reason}, {recipe.source}'),
        _constructor(recipe.layer_decay, paramwise, 'options of that constructor'),
    ]
    return [*changes, *_schedule_changes(cfg, task, old.get('lr'), lr)], []


def _of_other_backbone(wrapper: Mapping) -> bool:
    return 'constructor' in wrapper and 'Decay' in str(wrapper['constructor'])


def _constructor(rate: float, paramwise: Mapping, reason: str) -> Change:
    options: dict[str, Any] = dict(layer_decay_rate=rate, flat_decay_mult=0.0, embed_decay_mult=0.0)
    options.update({key: paramwise[key] for key in _KEPT if key in paramwise})
    custom = {
        name: {option: value for option, value in dict(rules).items() if option in ('lr_mult', 'decay_mult')}
        for name, rules in (paramwise.get('custom_keys') or {}).items()
        if not name.startswith(_OF_BACKBONE) and name != 'norm'
    }
    if custom:
        options['custom_keys'] = custom
    return Change('optim_wrapper.paramwise_cfg', options, reason, delete=True)


def _batch_size(cfg: Config, task: str) -> int:
    return (cfg.get('auto_scale_lr') or {}).get('base_batch_size', BATCHES[task])


def _schedule_changes(cfg: Config, task: str, old_lr: float | None, new_lr: float | None) -> list[Change]:
    """Learning rates in the schedule become ratios, and AdamW gets a warm-up."""
    schedulers = cfg.get('param_scheduler')
    if not isinstance(schedulers, list | tuple) or not schedulers:
        return []
    changed = [_as_ratio(copy.deepcopy(dict(one)), old_lr) for one in schedulers]
    reason = 'the last learning rate is a ratio, as layers have different learning rates'
    if new_lr is not None and not any(type_name(one['type']) == 'LinearLR' for one in changed):
        changed = _with_warm_up(changed, task)
        reason = (
            'AdamW starts with a warm-up'
            if changed[1:] == [dict(one) for one in schedulers]
            else f'a warm-up; {reason}'
        )
    if changed == [dict(one) for one in schedulers]:
        return []
    return [Change('param_scheduler', changed, reason)]


def _as_ratio(scheduler: dict, old_lr: float | None) -> dict:
    if not scheduler.get('eta_min') or not old_lr:
        return scheduler
    kind = type_name(scheduler['type'])
    if kind.startswith('CosineAnnealing'):
        scheduler['eta_min_ratio'] = scheduler.pop('eta_min') / old_lr
    elif kind.startswith('Poly'):  # it has no ratio
        scheduler['eta_min'] = 0.0
    return scheduler


def _with_warm_up(schedulers: list[dict], task: str) -> list[dict]:
    by_epoch = task == 'cls'
    end = 5 if by_epoch else 1500
    warm_up: dict[str, Any] = dict(type='LinearLR', start_factor=1e-3, by_epoch=by_epoch, begin=0, end=end)
    if by_epoch:
        warm_up['convert_to_iter_based'] = True
    return [warm_up, *schedulers]
