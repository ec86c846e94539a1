# Copyright (c) addp_mm contributors. Apache-2.0.
"""Numbers of a config that no training can use."""

from collections.abc import Callable, MutableMapping
from typing import Any

from mmengine.config import Config

from addp_mm.checks.config_classes import DATA_LOADERS
from addp_mm.config.nodes import node_at
from addp_mm.errors import ConfigError
from addp_mm.finite import is_finite

# smallest value and type
_NUMBERS: dict[str, tuple[int, type]] = {
    'train_cfg.max_iters': (1, int),
    'train_cfg.max_epochs': (1, int),
    'train_cfg.val_interval': (1, int),
    'optim_wrapper.optimizer.lr': (0, float),
    'optim_wrapper.accumulative_counts': (1, int),
    'default_hooks.logger.interval': (1, int),
    'default_hooks.checkpoint.interval': (1, int),
    'randomness.seed': (0, int),
    **{f'{loader}.batch_size': (1, int) for loader in DATA_LOADERS},
    **{f'{loader}.num_workers': (0, int) for loader in DATA_LOADERS},
}
# Values outside of these ranges that switch something off.
_OFF: dict[str, Callable[[Config, Any], bool]] = {
    'train_cfg.val_interval': lambda cfg, _: cfg.get('val_dataloader') is None,
    'default_hooks.checkpoint.interval': lambda _, value: value == -1,
}
_HINTS = {
    'train_cfg.val_interval': '. To train without validation: val_dataloader=None val_cfg=None val_evaluator=None',
    'default_hooks.checkpoint.interval': '. To save only at the end: -1',
}


def check_numbers(cfg: Config) -> None:
    """Refuse impossible values, and values that are not numbers, for numbers of a training.

    A whole number that is written as a float, such as ``1e4``, becomes an integer.

    Raises:
        ConfigError: A value is wrong. The message names the key.
    """
    for name, (least, number) in _NUMBERS.items():
        section, _, key = name.rpartition('.')
        node = node_at(cfg, section)
        if not isinstance(node, MutableMapping):
            continue
        value = node.get(key)
        if value is None or name in _OFF and _OFF[name](cfg, value):
            continue
        is_number = isinstance(value, int | float) and not isinstance(value, bool) and is_finite(value)
        if not is_number or value < least or value != number(value):
            kind = 'a whole number' if number is int else 'a number'
            raise ConfigError(f'config: {name} must be {kind} of at least {least}, got {value!r}{_HINTS.get(name, "")}')
        if number is int:
            node[key] = int(value)
    seed = (cfg.get('randomness') or {}).get('seed') or 0
    if seed >= 2**32:
        raise ConfigError(f'config: randomness.seed must be at most {2**32 - 1}, got {seed}')
