# Copyright (c) addp_mm contributors. Apache-2.0.
"""Sections of a config that belong together."""

from mmengine.config import Config

from addp_mm.errors import ConfigError

# Sections of a config that are all needed, or all None.
_TOGETHER = (
    ('train_dataloader', 'train_cfg', 'optim_wrapper'),
    ('val_dataloader', 'val_cfg', 'val_evaluator'),
    ('test_dataloader', 'test_cfg', 'test_evaluator'),
)


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
