# Copyright (c) addp_mm contributors. Apache-2.0.
"""A pre-trained algorithm from a config and a checkpoint."""

from __future__ import annotations

from os import PathLike, fspath

import torch
from torch import nn

from addp_mm.checkpoints.errors import CheckpointError
from addp_mm.checkpoints.state_dict import find_state_dict
from addp_mm.errors import first_few


def load_model(config, checkpoint: str | PathLike, device: torch.device | str = 'cpu') -> nn.Module:
    """Build the algorithm of a pre-training config and load all of its weights.

    Args:
        config: Path of a config, or a :class:`mmengine.config.Config`.
        checkpoint: Path, ``addp_mm://NAME`` or address of a checkpoint of the algorithm (``.pth``
            or ``.safetensors``). Where it lacks the frozen parts as a whole, these come from their
            own ``init_cfg``.
        device: Where the model goes.

    Returns:
        The model in eval mode, without gradients.

    Raises:
        ConfigError: If the config does not exist or builds no
            :class:`~addp_mm.models.selfsup.ADDP`.
        FileNotFoundError: If the checkpoint does not exist.
        CheckpointError: If the checkpoint cannot be read, or does not fit the config's model
            exactly.
    """
    from mmengine.config import Config
    from mmengine.registry import DefaultScope
    from mmengine.runner.checkpoint import CheckpointLoader

    from addp_mm.config.config_file import ConfigError, load_config
    from addp_mm.registry import MODELS

    name = 'the config' if isinstance(config, Config) else fspath(config)
    cfg = config if isinstance(config, Config) else load_config(name)
    if 'model' not in cfg:
        raise ConfigError(f'{name} has no model')
    checkpoint = fspath(checkpoint)
    weights = find_state_dict(CheckpointLoader.load_checkpoint(checkpoint, map_location='cpu'), checkpoint)
    with DefaultScope.overwrite_default_scope(cfg.get('default_scope') or 'mmpretrain'):
        model = MODELS.build(cfg.model)
        if not (hasattr(model, 'predict_tokens') and hasattr(model, 'frozen_parts')):
            raise ConfigError(
                f'{name} builds {type(model).__name__}, which generates no images: give the config of '
                'an ADDP pre-training (configs/pretrain)'
            )
        absent = [part for part in model.frozen_parts if not any(key.startswith(f'{part}.') for key in weights)]
        for part in absent:
            model.frozen_parts[part].init_weights()
    _load_exactly(model, weights, absent, checkpoint, name)
    unloaded = model.unloaded_parts()
    if unloaded:
        raise CheckpointError(
            f'{checkpoint} holds no {" and no ".join(unloaded)}, and {name} gives none an init_cfg: '
            'use a checkpoint of the whole algorithm'
        )
    return model.requires_grad_(False).to(device).eval()


def _load_exactly(model: nn.Module, weights: dict, absent: list[str], checkpoint: str, config: str) -> None:
    hint = 'use the config with which the checkpoint was trained'
    try:
        missing, unexpected = model.load_state_dict(weights, strict=False)
    except RuntimeError as error:
        raise CheckpointError(f'{checkpoint} does not fit the model of {config}: {error}; {hint}') from error
    missing = [key for key in missing if key.split('.')[0] not in absent]
    if missing or unexpected:
        raise CheckpointError(
            f'{checkpoint} does not fit the model of {config}: missing {first_few(missing)}; '
            f'unexpected {first_few(unexpected)}; {hint}'
        )
