# Copyright (c) addp_mm contributors. Apache-2.0.
"""Networks that extract the features with which images are compared."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from addp_mm.checkpoints.errors import CheckpointError
from addp_mm.checkpoints.fingerprint import module_fingerprint
from addp_mm.checkpoints.init_weights import init_weights
from addp_mm.config.config_file import load_config
from addp_mm.config.shipped import ShippedFileError, config_path
from addp_mm.errors import ConfigError
from addp_mm.imagenet import IMAGENET_MEAN, IMAGENET_STD
from addp_mm.registry import METRICS, MODELS


class FeatureExtractor(nn.Module):
    """Base class: images, uint8 (B, C, H, W), to features (B, D), without gradient.

    The network stays in eval mode.

    Attributes:
        name: Name of the network in the keys of metrics.
        fingerprint: SHA-256 of the weights and of all settings that change the features.
        is_inception: Whether the Fréchet distance of the features is the FID: Inception with the
            weights of the original FID.
        has_logits: Whether the network is a classifier, as the inception score needs.
        dims: Number of features D, if it is known before an image was seen.
    """

    name: str
    fingerprint: str
    is_inception = False
    has_logits = False
    dims: int | None = None

    def with_logits(self, images: Tensor) -> tuple[Tensor, Tensor | None]:
        """Extract features (B, D), and logits (B, K) if the network has them, of images."""
        return self(images), None

    def key(self, metric: str) -> str:
        """Return ``metric``, followed by the name of the network unless that is FID's Inception."""
        return metric if self.is_inception else f'{metric}[{self.name}]'

    def train(self, mode: bool = True) -> FeatureExtractor:  # noqa: ARG002  # torch's signature
        """Stay in eval mode."""
        return super().train(False)


@METRICS.register_module()
class BackboneFeatures(FeatureExtractor):
    """Features of any registered backbone, for images that are unsuitable for Inception.

    A distance in these features is not an FID. It can only be compared with distances in the
    features of the same network, so the keys of metrics contain ``name``.

    Args:
        backbone: Config of a module from images to vectors (B, D) or maps (B, D, h, w). Maps are
            averaged over positions. If there are several outputs, the last one is used. Its
            ``init_cfg`` loads the weights.
        name: Name in the keys of metrics, such as 'addp-vit-nano-p8': letters, digits, '.', '_'
            and '-'.
        mean: Subtracted from each channel of images in [0, 1]. Defaults to ImageNet's.
        std: Divides each channel afterwards. Defaults to ImageNet's.
        input_size: Side in pixels to which images are resized first (bilinear, antialiased).
            Defaults to None: they keep their size.

    Raises:
        ValueError: An option is out of its range.
        CheckpointError: Not all weights of the backbone were loaded.
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self,
        backbone: dict,
        name: str,
        mean: Sequence[float] = IMAGENET_MEAN,
        std: Sequence[float] = IMAGENET_STD,
        input_size: int | None = None,
    ) -> None:
        super().__init__()
        if not re.fullmatch(r'[\w.-]+', name) or 'inception' in name.lower():
            raise ValueError(
                'the name of the extractor consists of letters, digits, ".", "_" and "-" and does not contain '
                f'"inception", the network of FID; got {name!r}'
            )
        if len(mean) != len(std):
            raise ValueError(f'mean and std need one number for each channel, got {mean} and {std}')
        network = MODELS.build(backbone)
        # timm's backbones with pretrained=True load their weights in the constructor.
        if not getattr(network, 'is_init', False) and not _load_weights(network):
            raise CheckpointError(
                f'{name}: not all weights of {type(network).__name__} were loaded, and features of random weights have '
                "no meaning. Give backbone an init_cfg=dict(type='addp_mm.Pretrained', checkpoint=…) with all of them"
            )
        self.name = name
        self.network = network.requires_grad_(False)
        self.network.eval()  # eval() is a statement of its own: in mmpretrain's backbones it returns None
        self.register_buffer('mean', torch.tensor(mean).view(-1, 1, 1), persistent=False)
        self.register_buffer('std', torch.tensor(std).view(-1, 1, 1), persistent=False)
        self.input_size = input_size
        built_from = {key: value for key, value in backbone.items() if key != 'init_cfg'}
        self.fingerprint = module_fingerprint(network, built_from, list(mean), list(std), input_size)

    def prepared(self, images: Tensor) -> Tensor:
        """The network's input from images, uint8 (B, C, H, W): resized and normalised."""
        x = in_channels(images, len(self.mean), self.name).float() / 255
        if self.input_size is not None:
            x = F.interpolate(x, size=(self.input_size, self.input_size), mode='bilinear', antialias=True)
        return (x - self.mean) / self.std

    @torch.no_grad()
    def forward(self, images: Tensor) -> Tensor:
        """Extract features (B, D) of images, uint8 (B, C, H, W)."""
        return self.vectors(self.network(self.prepared(images)))

    def vectors(self, output: Tensor | Sequence[Tensor]) -> Tensor:
        """Features (B, D) of the network's output; maps are averaged.

        Raises:
            ValueError: The output is neither vectors nor maps.
        """
        features = output if isinstance(output, Tensor) else output[-1]
        if features.dim() == 4:
            features = features.mean((2, 3))
        if features.dim() != 2:
            raise ValueError(
                f'{self.name} gives features {tuple(features.shape)}, but the metric needs vectors (B, D) or maps '
                "(B, D, h, w). Set out_type='avg_featmap' or 'cls_token' for ADDPViT"
            )
        return features


def _load_weights(network: nn.Module) -> bool:
    """Call ``init_weights``; return whether it loaded a weight for each parameter."""
    loaded = []

    def note(_: nn.Module, state_dict: dict, prefix: str, *__) -> None:
        loaded.append(all(prefix + name in state_dict for name, _ in network.named_parameters()))

    hook = network.register_load_state_dict_pre_hook(note)
    if hasattr(network, 'init_weights'):
        init_weights(network)
    hook.remove()
    return any(loaded)


def in_channels(images: Tensor, channels: int, name: str) -> Tensor:
    """Repeat grey images to the network's channels, and refuse any other number of channels."""
    if images.dtype != torch.uint8:
        raise TypeError(f'the extractor needs uint8 images, got {images.dtype}')
    if images.shape[1] == 1:
        return images.expand(-1, channels, -1, -1)
    if images.shape[1] != channels:
        raise ValueError(
            f'{name} takes {channels} channels, but the images have {images.shape[1]}. Use a backbone with '
            f'in_channels={images.shape[1]}, and a mean and a std for each channel'
        )
    return images


def build_extractor(extractor: dict | str | FeatureExtractor | None) -> FeatureExtractor:
    """Build an extractor.

    Args:
        extractor: A config; the name of a shipped config or a config file that defines one, see
            :func:`extractor_of`; an extractor; or None for Inception with FID's weights.
    """
    if isinstance(extractor, FeatureExtractor):
        return extractor
    if isinstance(extractor, str):
        extractor = extractor_of(extractor)
    return METRICS.build(extractor or dict(type='addp_mm.InceptionFeatures'))


def extractor_of(config: str) -> dict:
    """The ``extractor`` that a config file defines.

    Args:
        config: Path of a config file; or NAME of a shipped one,
            ``configs/_base_/evaluation/NAME_features.py``.

    Raises:
        ConfigError: The file does not exist or has no ``extractor``.
    """
    if not os.path.exists(config) and not config.endswith('.py'):
        try:
            config = config_path(f'_base_/evaluation/{config}_features')
        except ShippedFileError as error:
            raise ConfigError(
                f'{config} is neither a config file nor the name of an extractor in configs/_base_/evaluation, such as '
                'addp-vit-nano-p8'
            ) from error
    cfg = load_config(config)
    if cfg.get('extractor') is None:
        raise ConfigError(f"{config} has no 'extractor'; see configs/_base_/evaluation")
    return cfg.extractor.to_dict()
