# Copyright (c) addp_mm contributors. Apache-2.0.
"""A classifier of timm, at every position."""

from __future__ import annotations

import sys
from typing import Any

import timm
import torch
from mmengine.runner.checkpoint import CheckpointLoader
from timm.data import resolve_model_data_config
from torch import Tensor

from addp_mm.checkpoints.comparison import load_exactly
from addp_mm.checkpoints.errors import CheckpointError
from addp_mm.checkpoints.state_dict import find_state_dict
from addp_mm.config.config_file import ConfigError
from addp_mm.errors import first_few
from addp_mm.label_maps.dense_classifier import DenseClassifier, from_positions, to_positions, tokens_to_map
from addp_mm.models.backbones.timm_model import check_name


class TimmClassifier(DenseClassifier):
    """A model of timm at every position of its last map.

    Its head sees each position as an image of one pixel, or each patch token as the only one. VOLO
    has a layer for tokens, which is used.

    Args:
        name: timm's name.
        model: The model, in eval mode.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, name: str, model: Any) -> None:
        super().__init__(f'timm:{name}')
        self.model = model
        data = resolve_model_data_config(model)
        self._image_size = data['input_size'][-1]
        for key in ('mean', 'std'):
            self.register_buffer(key, 255 * torch.tensor(data[key]).view(3, 1, 1), persistent=False)

    @property
    def image_size(self) -> int:
        """Side of the images in timm's configuration, in pixels."""
        return self._image_size

    def position_logits(self, images: Tensor) -> Tensor:
        """Logits at each position."""
        features = self.model.forward_features((images - self.mean) / self.std)
        num_prefix = getattr(self.model, 'num_prefix_tokens', 0)
        if getattr(self.model, 'aux_head', None) is not None:  # VOLO: the class token is first
            return tokens_to_map(self.model.aux_head(features[:, 1:]))
        if features.ndim == 3:
            features = tokens_to_map(features[:, num_prefix:])
            # the head takes the first token or the mean of those after the prefix
            positions = to_positions(features)[:, None].expand(-1, num_prefix + 1, -1)
        elif getattr(self.model, 'output_fmt', 'NCHW') == 'NHWC':
            features = features.permute(0, 3, 1, 2)
            positions = to_positions(features)[:, None, None]
        else:
            positions = to_positions(features)[..., None, None]
        return from_positions(self.model.forward_head(positions), features)


def load_timm_classifier(name: str, checkpoint: str, image_size: int | None) -> TimmClassifier:
    """Build a model of timm with the weights of a checkpoint.

    Args:
        name: timm's name.
        checkpoint: Path or address. The number of classes is that of its classifier.
        image_size: Side of the images in pixels. None for that of the model.

    Raises:
        ConfigError: timm has no such model, or the model cannot take images of that size.
        CheckpointError: The weights are not exactly those of the model.
    """
    try:
        check_name(name)
    except ValueError as error:
        raise ConfigError(f'timm:{name}: {error}') from error
    weights = find_state_dict(CheckpointLoader.load_checkpoint(checkpoint, 'cpu', logger='silent'), checkpoint)
    classifier = _classifier_of(name)
    if f'{classifier}.weight' not in weights:
        raise CheckpointError(
            f'{checkpoint} has no {classifier}.weight, the last layer of {name}: it is not a classifier of this model. '
            f'It has {first_few(weights)}'
        )
    model = _create(name, len(weights[f'{classifier}.weight']), image_size)
    resize = getattr(sys.modules[type(model).__module__], 'checkpoint_filter_fn', None)
    load_exactly(resize(weights, model) if resize else weights, model, checkpoint)
    return TimmClassifier(name, model.requires_grad_(False).eval())


def _classifier_of(name: str) -> str:
    """Name of the last layer of a model."""
    with torch.device('meta'):
        model: Any = timm.create_model(name)
    found = model.pretrained_cfg.get('classifier', 'head')
    return found if isinstance(found, str) else found[0]


def _create(name: str, num_classes: int, image_size: int | None) -> Any:
    """Build the model for images of a size; a convolutional network takes every size."""
    if image_size is not None:
        try:
            return timm.create_model(name, num_classes=num_classes, img_size=image_size)
        except TypeError:  # no such argument
            pass
        except (AssertionError, ValueError) as error:
            raise ConfigError(f'timm:{name} cannot take images of {image_size} px: {error}') from error
    return timm.create_model(name, num_classes=num_classes)
