# Copyright (c) addp_mm contributors. Apache-2.0.
"""Check that the weights of a run exist, before a runner is built."""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mmengine.config import Config

from addp_mm.config.config_file import ConfigError
from addp_mm.config.paths import require_file
from addp_mm.config.type_names import type_name

DEEPSPEED_FILES = '*_model_states.pt'
# Names of the initializers that load a checkpoint in mmengine and addp_mm, and the name of
# mmengine's class.
_PRETRAINED = ('Pretrained', 'PretrainedInit')
_CHECKPOINTS = ('.pth', '.pt', '.ckpt', '.safetensors')


def require_weights(cfg: Config) -> None:
    """Check that a model can be tested without a checkpoint: an ``init_cfg`` loads its weights.

    Args:
        cfg: The whole config.

    Raises:
        ConfigError: The model must be trained first, or no ``init_cfg`` loads weights.
    """
    if cfg.get('train_cfg') is not None:
        raise ConfigError('the model of this config must be trained first: give its checkpoint after the config')
    if not _names_weights(cfg.model):
        raise ConfigError(
            'the model has no weights: give a checkpoint after the config, or give a component of the model '
            "an init_cfg=dict(type='addp_mm.Pretrained', checkpoint=…)"
        )


def check_initial_weights(cfg: Config) -> None:
    """Check that the local checkpoints exist that initialise the model or a part of it.

    Args:
        cfg: The whole config.

    Raises:
        ConfigError: ``load_from`` or the checkpoint of an ``init_cfg`` does not exist.
    """
    for name, path in initial_weights(cfg).items():
        require_checkpoint(path, name)


def initial_weights(cfg: Config) -> dict[str, str]:
    """Paths and addresses of the weights from which a training starts, by their key.

    Args:
        cfg: The whole config.
    """
    paths = {'load_from': cfg.get('load_from'), **dict(_initial_weights(cfg.get('model'), 'model'))}
    return {name: path for name, path in paths.items() if path and isinstance(path, str)}


def _names_weights(node: Any) -> bool:
    return next(_initial_weights(node, ''), None) is not None


def _initial_weights(node: Any, path: str) -> Iterator[tuple[str, Any]]:
    """Yield dotted name and ``checkpoint`` of each initializer that loads one."""
    if isinstance(node, dict):
        if type_name(node.get('type')) in _PRETRAINED:
            yield f'{path}.checkpoint', node.get('checkpoint')
        for key, value in node.items():
            yield from _initial_weights(value, f'{path}.{key}')
    elif isinstance(node, list | tuple):
        for index, value in enumerate(node):
            yield from _initial_weights(value, f'{path}.{index}')


def require_checkpoint(path: str, what: str = 'checkpoint') -> str:
    """Check that a local checkpoint is a file. Addresses such as ``https://…`` are not checked.

    Args:
        path: Path or address of the checkpoint.
        what: Name of the option in messages. Defaults to 'checkpoint'.

    Returns:
        The path, with ``~`` replaced by the home folder.

    Raises:
        ConfigError: The file does not exist, or it is a folder of DeepSpeed.
    """
    path = os.path.expanduser(path)
    if any(Path(path).glob(DEEPSPEED_FILES)):
        folder = Path(path).parent
        raise ConfigError(
            f'{what} {path} contains the shards of a DeepSpeed training. Only that training can resume from them. '
            f'Join its weights with\n    python {folder}/zero_to_fp32.py {folder} WHOLE --tag '
            f'{Path(path).name}\nand give the file in WHOLE'
        )
    if '://' not in path:
        require_file(path, what, _CHECKPOINTS)
    return path
