# Copyright (c) addp_mm contributors. Apache-2.0.
"""FlexibleRunner built from a config."""

from typing import Any

from addp_mm.compat.importing import replace_method


def patch_flexible_runner(module: Any) -> bool:
    """Make FlexibleRunner read ``compile``, work without ``env_cfg``, and save the counts given.

    Runner does all of it. FlexibleRunner's ``from_cfg`` ignores the first and fails without the
    second. Its ``save_checkpoint`` replaces the iteration that CheckpointHook gives by the next,
    which is wrong after a validation: a resume would leave out an iteration.

    Args:
        module: ``mmengine.runner._flexible_runner``.

    Returns:
        True.
    """

    def make(original):

        def __init__(self, model, *args, compile=False, env_cfg=None, cfg=None, **kwargs):
            if compile is False and cfg is not None:
                compile = cfg.get('compile') or False
            original(
                self,
                model,
                *args,
                compile=compile,
                env_cfg=env_cfg or dict(dist_cfg=dict(backend='nccl')),
                cfg=cfg,
                **kwargs,
            )

        return __init__

    replace_method(module.FlexibleRunner, '__init__', make)
    replace_method(module.FlexibleRunner, 'save_checkpoint', _with_given_counts)
    return True


def _with_given_counts(original):

    def save_checkpoint(self, *args, meta=None, **kwargs):
        given = {key: meta[key] for key in ('epoch', 'iter') if key in (meta or {})}
        save = self.strategy.save_checkpoint

        def save_given(*names, extra_ckpt, **options):
            extra_ckpt['meta'].update(given)
            save(*names, extra_ckpt=extra_ckpt, **options)

        self.strategy.save_checkpoint = save_given
        try:
            original(self, *args, meta=meta, **kwargs)
        finally:
            del self.strategy.save_checkpoint

    return save_checkpoint
