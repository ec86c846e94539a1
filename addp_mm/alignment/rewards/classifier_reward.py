# Copyright (c) addp_mm contributors. Apache-2.0.
"""Log-probability of a class under a classifier."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from addp_mm.alignment.rewards.reward import RewardError
from addp_mm.diffusion.token_space import NO_CLASS
from addp_mm.errors import ConfigError
from addp_mm.label_maps.config_classifier import load_image_classifier
from addp_mm.registry import REWARDS

_MOST_LIKELY, _LABEL = 'most_likely', 'label'


@REWARDS.register_module()
class ClassifierReward:
    """Log-probability of a class, in nats.

    Args:
        config: Config of mmpretrain's ``ImageClassifier``: a file or the name of a shipped config.
        checkpoint: Its weights: any address that ``addp_mm.Pretrained`` takes.
        target: The class: a number; 'label', the class that the image was generated for; or
            'most_likely', that with the highest probability. Defaults to 'label'.
        device: Device of the classifier. Defaults to 'cpu'.

    Raises:
        ConfigError: The target is unknown, or the config has no classifier.
        CheckpointError: The weights are not those of the classifier.
    """

    def __init__(self, config: str, checkpoint: str, target: str | int = _LABEL, device: str = 'cpu') -> None:
        if isinstance(target, str) and target not in (_LABEL, _MOST_LIKELY):
            raise ConfigError(f"target must be a number, '{_LABEL}' or '{_MOST_LIKELY}', got {target!r}")
        self.config, self.target = config, target
        self.model, self.image_size = load_image_classifier(config, checkpoint)
        self.model.to(device)

    def __call__(self, images: Tensor, labels: Tensor) -> Tensor:
        """Rewards (B,) of images (B, 3, H, W) in [0, 1] with classes (B,).

        Raises:
            RewardError: An image has no class, or the classifier does not have it.
        """
        log_probs = self._logits(images).float().log_softmax(1)
        if self.target == _MOST_LIKELY:
            return log_probs.amax(1)
        wanted = labels if self.target == _LABEL else labels.new_full(labels.shape, int(self.target))
        if (wanted == NO_CLASS).any():
            raise RewardError(
                "ClassifierReward has target='label', but an image was generated without a class: generate them with "
                "--classes, or choose target='most_likely'"
            )
        if wanted.max() >= log_probs.shape[1]:
            raise RewardError(f'{self.config} has {log_probs.shape[1]} classes; there is no class {int(wanted.max())}')
        return log_probs.gather(1, wanted.to(log_probs.device)[:, None])[:, 0]

    def _logits(self, images: Tensor) -> Tensor:
        parameter = next(self.model.parameters())
        size = (self.image_size, self.image_size)
        pixels = images.to(parameter.device, parameter.dtype)
        if pixels.shape[-2:] != size:
            pixels = F.interpolate(pixels, size, mode='bicubic', antialias=True).clamp(0, 1)
        inputs = self.model.data_preprocessor(dict(inputs=255 * pixels.flip(1)), False)['inputs']  # mmcv's order: BGR
        return self.model(inputs, mode='tensor')
