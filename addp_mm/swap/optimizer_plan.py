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
from addp_mm.swap.zoo_entry import ZooEntry

CONSTRUCTOR = 'addp_mm.LayerDecayOptimWrapperConstructor'
# Options of other constructors that ours has too.
_KEPT = ('norm_decay_mult', 'bias_decay_mult', 'flat_decay_mult')
# Parts of names that only other backbones have; the constructor has its own rules for tokens,
# positions and norms.
_OF_BACKBONE = (
    *('backbone.', 'absolute_pos_embed', 'relative_position_bias_table', 'pos_embed', 'pos_block', 'cls_token'),
    *('norm', 'ln', 'bias', 'gamma'),
)
_RATIO = 'the last learning rate is a ratio of the first, or 0, because the first one changes'


def optimizer_changes(
    cfg: Config, entry: ZooEntry, task: str, is_frozen: bool = False
) -> tuple[list[Change], list[str]]:
    """AdamW with layer decay instead of the optimizer of another backbone.

    An AdamW stays, with its learning rate. A config that lowers the backbone's learning rate by
    itself, as DETRs do, keeps its whole optimizer.

    Args:
        cfg: The whole config.
        entry: The backbone.
        task: 'det', 'seg' or 'cls'.
        is_frozen: Whether the backbone is not trained. Defaults to False.

    Returns:
        The changes, and sentences about what stays.
    """
    wrapper = cfg.get('optim_wrapper')
    if not isinstance(wrapper, Mapping) or not isinstance(wrapper.get('optimizer'), Mapping):
        return [], ['the config has no optim_wrapper.optimizer: choose one']
    paramwise = wrapper.get('paramwise_cfg') or {}
    if is_frozen:
        return [], ['the optimizer stays: only the head is trained']
    if entry.recipes is None:
        notes = [f'the optimizer stays: {type_name(wrapper["optimizer"]["type"])}']
        if cfg.model.backbone.get('norm_eval'):
            notes.append('batch norms are trained; the original keeps their statistics fixed')
        return _without_layer_decay(wrapper, paramwise), notes
    if 'lr_mult' in (paramwise.get('custom_keys') or {}).get('backbone', {}):
        factor = paramwise['custom_keys']['backbone']['lr_mult']
        return [], [f'the optimizer stays: it gives the backbone {factor:g} of the learning rate']
    recipe = entry.recipes[task]
    old = wrapper['optimizer']
    changes, lr = [], None
    if type_name(old['type']) != 'AdamW':
        lr = recipe.lr * _batch_size(cfg, task) / BATCHES[task]
        optimizer = dict(type='AdamW', lr=lr, betas=(0.9, 0.999), weight_decay=recipe.weight_decay)
        reason = f'instead of {type_name(old["type"])}: {recipe.lr:g} for {BATCHES[task]} images, as in {recipe.source}'
        changes.append(Change('optim_wrapper.optimizer', optimizer, reason, delete=True))
    if recipe.layer_decay == 1:
        reason, options = 'it reads the options below', f'no layer decay, as in {recipe.source}'
    else:
        reason = 'it decays learning rates by layer and reads the options below'
        options = f'layer decay as in {recipe.source}'
    changes += [
        Change('optim_wrapper.constructor', CONSTRUCTOR, reason),
        _constructor(recipe.layer_decay, paramwise, options),
    ]
    return [*changes, *_schedule_changes(cfg, task, old.get('lr'), lr)], []


def _without_layer_decay(wrapper: Mapping, paramwise: Mapping) -> list[Change]:
    """Replace the layer decay of another backbone, which its constructor would not find."""
    if 'Decay' not in str(wrapper.get('constructor')):
        return []
    reason = 'the original constructor knows the layers of its own backbone only'
    return [Change('optim_wrapper.constructor', CONSTRUCTOR, reason), _constructor(1.0, paramwise, 'no layer decay')]


def _constructor(rate: float, paramwise: Mapping, reason: str) -> Change:
    options: dict[str, Any] = dict(layer_decay_rate=rate, flat_decay_mult=0.0, embed_decay_mult=0.0)
    options.update({key: paramwise[key] for key in _KEPT if key in paramwise})
    custom = {
        name: {option: value for option, value in dict(rules).items() if option in ('lr_mult', 'decay_mult')}
        for name, rules in (paramwise.get('custom_keys') or {}).items()
        if not name.lstrip('.').startswith(_OF_BACKBONE)
    }
    if custom:
        options['custom_keys'] = custom
    return Change('optim_wrapper.paramwise_cfg', options, reason, delete=True)


def _batch_size(cfg: Config, task: str) -> int:
    return (cfg.get('auto_scale_lr') or {}).get('base_batch_size', BATCHES[task])


def _schedule_changes(cfg: Config, task: str, old_lr: float | None, new_lr: float | None) -> list[Change]:
    """Learning rates in the schedule become ratios, and AdamW gets a warm-up."""
    given = cfg.get('param_scheduler') or []
    schedulers = [dict(one) for one in ([given] if isinstance(given, Mapping) else given)]
    changed = [_as_ratio(copy.deepcopy(one), old_lr) for one in schedulers]
    reasons = [_RATIO] if changed != schedulers else []
    if schedulers and new_lr is not None and not any(_is_warm_up(one) for one in schedulers):
        changed = [_warm_up(task), *changed]
        reasons.append('AdamW starts with a warm-up')
    return [Change('param_scheduler', changed, '; '.join(reasons))] if reasons else []


def _is_warm_up(scheduler: Mapping) -> bool:
    return type_name(scheduler['type']) in ('LinearLR', 'ConstantLR', 'QuadraticWarmupLR')


def _as_ratio(scheduler: dict, old_lr: float | None) -> dict:
    if not scheduler.get('eta_min') or not old_lr:
        return scheduler
    kind = type_name(scheduler['type'])
    if kind.startswith('CosineAnnealing'):
        scheduler['eta_min_ratio'] = scheduler.pop('eta_min') / old_lr
    elif kind.startswith('Poly'):  # it has no ratio
        scheduler['eta_min'] = 0.0
    return scheduler


def _warm_up(task: str) -> dict:
    if task == 'cls':
        return dict(type='LinearLR', start_factor=1e-3, by_epoch=True, begin=0, end=5, convert_to_iter_based=True)
    return dict(type='LinearLR', start_factor=1e-3, by_epoch=False, begin=0, end=1500)
