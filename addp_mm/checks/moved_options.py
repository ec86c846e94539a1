# Copyright (c) addp_mm contributors. Apache-2.0.
"""Options of hooks that TrainingGuardHook has now."""

from mmengine.config import Config

from addp_mm.config.config_file import ConfigError
from addp_mm.config.type_names import type_name

_GUARD = "default_hooks.guard = dict(type='addp_mm.TrainingGuardHook', …)"
_MOVED = dict(on_failure='policy', max_rollbacks='max_rollbacks', guard='collapse')


def check_moved_options(cfg: Config) -> None:
    """Refuse hooks and options of earlier versions whose work TrainingGuardHook does.

    Args:
        cfg: The whole config.

    Raises:
        ConfigError: The config has one; the message names the new key.
    """
    for hook in cfg.get('custom_hooks') or []:
        name = type_name(hook.get('type')) if isinstance(hook, dict) else ''
        if name == 'FiniteLossHook':
            raise ConfigError(
                f'custom_hooks: remove FiniteLossHook. {_GUARD} does its work; tools/train.py adds it to every training'
            )
        moved = next((key for key in _MOVED if key in hook), None) if name == 'GenerativePretrainHook' else None
        if moved:
            raise ConfigError(f'custom_hooks: GenerativePretrainHook.{moved} is now {_MOVED[moved]} of {_GUARD}')
