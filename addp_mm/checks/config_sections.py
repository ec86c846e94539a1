# Copyright (c) addp_mm contributors. Apache-2.0.
"""Sections of a config: what each one is, and which belong together."""

from collections.abc import Mapping
from typing import Any

from mmengine.config import Config

from addp_mm.errors import ConfigError

# Sections of a config that are all needed, or all None.
_TOGETHER = (
    ('train_dataloader', 'train_cfg', 'optim_wrapper'),
    ('val_dataloader', 'val_cfg', 'val_evaluator'),
    ('test_dataloader', 'test_cfg', 'test_evaluator'),
)
#: What a section is, besides None.
_KINDS: dict[str, tuple[type, ...]] = {
    **dict.fromkeys(
        ('model', 'train_dataloader', 'val_dataloader', 'test_dataloader', 'train_cfg', 'val_cfg', 'test_cfg'),
        (Mapping,),
    ),
    **dict.fromkeys(
        ('optim_wrapper', 'default_hooks', 'data_preprocessor', 'env_cfg', 'randomness', 'log_processor'), (Mapping,)
    ),
    'param_scheduler': (Mapping, list, tuple),
    'custom_hooks': (list, tuple),
    'default_scope': (str,),
}
#: Sections whose entries are dicts, or None.
_OF_DICTS = ('default_hooks', 'param_scheduler', 'custom_hooks')
_PLAIN = (str, int, float, list, tuple)
_WORDS = {Mapping: 'a dict', list: 'a list', str: 'a string'}


def check_kinds(cfg: Config) -> None:
    """Refuse a config with a section of another kind, such as a list where a dict is read.

    Raises:
        ConfigError: A section is of another kind. The message names it.
    """
    for name, kinds in _KINDS.items():
        value = cfg.get(name)
        if value is not None and not isinstance(value, kinds):
            words = ' or '.join(_WORDS[kind] for kind in kinds if kind in _WORDS)
            raise ConfigError(f'config: {name} must be {words}, got {value!r:.60}')
        if name in _OF_DICTS and isinstance(value, (Mapping, list, tuple)) and not _is_one(name, value):
            entries: Any = value.items() if isinstance(value, Mapping) else enumerate(value)
            for key, entry in entries:
                inner = entry if isinstance(value, Mapping) and isinstance(entry, (list, tuple)) else [entry]
                if (inner is entry and name != 'param_scheduler') or any(isinstance(one, _PLAIN) for one in inner):
                    raise ConfigError(f'config: {name}.{key} must be a dict(type=…), got {entry!r:.60}')


def _is_one(name: str, value: Any) -> bool:
    return name == 'param_scheduler' and isinstance(value, Mapping) and 'type' in value


def check_sections(cfg: Config) -> None:
    """Refuse a config that has only a part of what a training, validation or test needs.

    Raises:
        ConfigError: A section is missing. The message names all that belong together.
    """
    for names in _TOGETHER:
        absent = [name for name in names if cfg.get(name) is None]
        if absent and len(absent) < len(names):
            given = ' and '.join(name for name in names if name not in absent)
            off = ' '.join(f'{name}=None' for name in names)
            raise ConfigError(
                f'config: {" and ".join(f"{name}=None" for name in absent)}, but the config has {given}. Give all '
                f'three, or switch them off together: {off}'
            )
