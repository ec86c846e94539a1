# Copyright (c) addp_mm contributors. Apache-2.0.
"""Load a pre-trained model from a config and a checkpoint."""

from __future__ import annotations

from collections.abc import Mapping
from os import PathLike, fspath
from typing import TYPE_CHECKING, cast

import torch

from addp_mm.checkpoints.comparison import compare_weights
from addp_mm.checkpoints.errors import CheckpointError
from addp_mm.checkpoints.finite import refuse_non_finite
from addp_mm.checkpoints.init_weights import init_weights
from addp_mm.checkpoints.state_dict import find_state_dict

if TYPE_CHECKING:
    from mmengine.config import Config
    from mmengine.model import BaseModule

    from addp_mm.models.selfsup import ADDP


def load_model(config: Config | str | PathLike, checkpoint: str | PathLike, device: torch.device | str = 'cpu') -> ADDP:
    """Build the model of an ADDP pre-training config and load all of its weights.

    Args:
        config: Path of a config, or the config.
        checkpoint: Path, ``addp_mm://NAME`` or URL of a checkpoint of the model (``.pth`` or
            ``.safetensors``). If it has no weights of a frozen component, the component's
            ``init_cfg`` loads them.
        device: Device of the model. Defaults to 'cpu'.

    Returns:
        The model in eval mode, without gradients.

    Raises:
        ConfigError: The config does not exist or does not build an
            :class:`~addp_mm.models.selfsup.ADDP`.
        FileNotFoundError: The checkpoint does not exist.
        CheckpointError: The checkpoint cannot be read, or its weights are not exactly those of the
            model.
    """
    from mmengine.config import Config
    from mmengine.registry import DefaultScope
    from mmengine.runner.checkpoint import CheckpointLoader

    from addp_mm.config.config_file import ConfigError, load_config
    from addp_mm.models.selfsup import ADDP
    from addp_mm.registry import MODELS

    name = 'the config' if isinstance(config, Config) else fspath(config)
    cfg = config if isinstance(config, Config) else load_config(name)
    if 'model' not in cfg:
        raise ConfigError(f'{name} has no model')
    checkpoint = fspath(checkpoint)
    weights = dict(find_state_dict(CheckpointLoader.load_checkpoint(checkpoint, 'cpu', logger='silent'), checkpoint))
    with DefaultScope.overwrite_default_scope(cfg.get('default_scope') or 'mmpretrain'):
        model = MODELS.build(cfg.model)
        if not isinstance(model, ADDP):
            raise ConfigError(
                f'{name} builds {type(model).__name__}, which cannot generate images: give the config of an ADDP '
                'pre-training (configs/pretrain)'
            )
        frozen = cast('dict[str, BaseModule]', model.frozen_components)
        _check_trained_components(weights, model, checkpoint)
        absent = [part for part in frozen if not any(key.startswith(f'{part}.') for key in weights)]
        for part in absent:
            _load_frozen(part, frozen[part], checkpoint)
    unloaded = [part for part in absent if part in model.unloaded_components()]
    if unloaded:
        raise CheckpointError(
            f'{checkpoint} has no {" and no ".join(unloaded)}, and {name} has no init_cfg that loads it: use a '
            f"checkpoint of the whole model, or set model.{unloaded[0]}.init_cfg=dict(type='addp_mm.Pretrained', "
            'checkpoint=…) to the file that the pre-training used'
        )
    for part in absent:
        weights.update({f'{part}.{key}': value for key, value in frozen[part].state_dict().items()})
    comparison = compare_weights(weights, model)
    if not comparison.is_exact:
        raise CheckpointError(
            f'{checkpoint} does not fit the model of {name}: {comparison.differences()}; '
            'use the config with which the checkpoint was trained'
        )
    refuse_non_finite(weights, model, checkpoint)
    model.load_state_dict(weights)
    return model.requires_grad_(False).to(device).eval()


def _check_trained_components(weights: Mapping[str, object], model: ADDP, checkpoint: str) -> None:
    """Check that a checkpoint has all trained components, and not only the backbone."""
    trained = [name for name, part in model.named_children() if name not in model.frozen_components]
    needed = [name for name in trained if any(key.startswith(f'{name}.') for key in model.state_dict())]
    absent = [name for name in needed if not any(key.startswith(f'{name}.') for key in weights)]
    if absent:
        raise CheckpointError(
            f'{checkpoint} has no {" and no ".join(absent)}, only a part of the model: files of a backbone for '
            'fine-tuning, of a tokenizer and of a token predictor hold that alone. Backbone, neck (the token decoder) '
            'and head are in the checkpoint of the pre-training, such as work_dirs/NAME/iter_4000.pth: give that'
        )


def _load_frozen(name: str, component: BaseModule, checkpoint: str) -> None:
    """Load a frozen component that a checkpoint lacks; the error says why its file is read."""
    try:
        init_weights(component)
    except CheckpointError as error:
        raise CheckpointError(
            f'{checkpoint} has no {name}, and the file of model.{name}.init_cfg cannot be used instead: {error}'
        ) from error
