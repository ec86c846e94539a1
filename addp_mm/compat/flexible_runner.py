# Copyright (c) addp_mm contributors. Apache-2.0.
"""FlexibleRunner built from a config."""

from typing import Any

from addp_mm.compat.importing import replace_method


def patch_flexible_runner(module: Any) -> bool:
    """Make FlexibleRunner read ``compile`` from the config, and work without ``env_cfg``.

    Runner does both. FlexibleRunner's ``from_cfg`` ignores the first and fails without the second.

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
    return True
