# Copyright (c) addp_mm contributors. Apache-2.0.
"""Counts of iterations in a stage's config, stretched or shortened all together."""

from __future__ import annotations

from collections.abc import MutableMapping

from addp_mm.config.type_names import type_name

_HOOKS = {
    'ReconstructionPreviewHook': ('interval',),
    'GenerativePretrainHook': ('preview_interval',),
    'AdversarialStartHook': ('window', 'watch'),
    'EMAHook': ('begin_iter',),
}
_MODEL = ('quantize_from', 'restart_interval', 'restart_until')
_ADVERSARIAL = ('start', 'alone', 'ramp')
_LOGS = 200


def scale_iterations(cfg: MutableMapping, factor: float) -> None:
    """Multiply every count of iterations in a config, in place.

    These are the number of iterations, of warm-up and of the whole schedule of the learning rate,
    between validations, previews and checkpoints, and those by which a tokenizer's training and its
    hooks go.

    Args:
        cfg: Config of a stage.
        factor: Any positive number.
    """

    def scale(node: MutableMapping, *keys: str, least: int = 1) -> None:
        for key in keys:
            if node.get(key):
                node[key] = max(least, round(node[key] * factor))

    # no value of a base is shared with another part afterwards
    scale(cfg['train_cfg'], 'max_iters', 'val_interval')
    total = cfg['train_cfg']['max_iters']
    for scheduler in cfg.get('param_scheduler') or []:
        if scheduler.get('begin', 0) == 0 and type_name(scheduler['type']) == 'LinearLR':
            # over less than two iterations mmengine's warm-up would never end
            scale(scheduler, 'end', least=2)
        else:
            scale(scheduler, 'begin', least=2)
            scale(scheduler, 'end', 'T_max', least=3)
    model = cfg['model']
    scale(model, *_MODEL)
    scale(model.get('schedule') or {}, *_ADVERSARIAL)
    for hook in cfg.get('custom_hooks') or []:
        kind = type_name(hook['type'])
        scale(hook, *_HOOKS.get(kind, ()))
        if kind == 'AdversarialStartHook':
            hook['watch'] = max(hook['watch'], hook['window'] + 1)
        if kind == 'EMAHook' and 'momentum' in hook:
            hook['momentum'] = min(0.5, hook['momentum'] / factor)
    hooks = cfg['default_hooks']
    scale(hooks['checkpoint'], 'interval')
    hooks.setdefault('logger', {})['interval'] = max(1, min(50, total // _LOGS))


def accumulate(cfg: MutableMapping, batch_size: int, counts: int) -> None:
    """Take a step of the optimizer after ``counts`` batches of ``batch_size`` images, as many steps as before."""
    cfg['train_dataloader']['batch_size'] = batch_size
    if counts > 1:
        scale_iterations(cfg, counts)
        wrapper = cfg['optim_wrapper']
        parts = [part for part in wrapper.values() if isinstance(part, MutableMapping) and 'optimizer' in part]
        for part in parts or [wrapper]:
            part['accumulative_counts'] = counts
