# Copyright (c) addp_mm contributors. Apache-2.0.
"""FlexibleRunner built from a config."""

from types import ModuleType

from addp_mm.compat.importing import replace_method


def mend_flexible_runner(module: ModuleType) -> None:
    """Let FlexibleRunner see the config's ``compile`` key, and do without ``env_cfg``, as Runner does.

    Its ``from_cfg`` forgets the first and fails without the second. Applied to
    ``mmengine.runner._flexible_runner``.
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
