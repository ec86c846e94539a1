# Copyright (c) addp_mm contributors. Apache-2.0.
"""The perceptual loss: LPIPS, or the features of any backbone."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Sequence
from importlib.util import find_spec
from pathlib import Path

import torch
import torch.nn.functional as F
from mmengine.logging import print_log
from mmengine.model import BaseModule
from mmengine.runner.checkpoint import CheckpointLoader
from torch import Tensor, nn

from addp_mm.checkpoints.errors import CheckpointError
from addp_mm.checkpoints.init_weights import init_weights
from addp_mm.checkpoints.state_dict import find_state_dict
from addp_mm.imagenet import IMAGENET_MEAN, IMAGENET_STD
from addp_mm.registry import MODELS

LPIPS_PACKAGE = 'lpips'


@MODELS.register_module()
class PerceptualLoss(BaseModule):
    """Distance of two images in the features of a frozen network.

    At each position of each layer the features are scaled to length 1. Their squared difference is
    summed over the channels and averaged over the positions (LPIPS, arXiv 1801.03924, eq. 1). There
    are two kinds of networks:

    - LPIPS: ``backbone=dict(type='addp_mm.VGG16Features', init_cfg=…)`` with ``channel_weights``.
      The results equal those of the ``lpips`` package for ``net='vgg'``.
    - Any registered backbone without ``channel_weights``, where the weights of LPIPS may not be
      used: ``dict(type='addp_mm.ADDPViT', out_indices=(2, 5), out_type='featmap', init_cfg=…)`` or
      ``dict(type='mmpretrain.TIMMBackbone', …, features_only=True, pretrained=True)``.

    The network is not a submodule, so that optimizers, checkpoints and moving averages do not
    contain it. It stays in eval mode. ``init_weights`` loads it and logs its name.

    The network has as many input channels as ``mean`` has numbers. Images with another number of
    channels are split into groups of that many channels (the last channel pads the last group; a
    grey image is repeated), and the distances of the groups are averaged.

    Args:
        backbone: Config of a module from images to feature maps (B, C, h, w) or tokens (B, L, C),
            one or a tuple; or the module.
        channel_weights: Learned weights of the channels (LPIPS): a file with the keys
            ``lin0.model.1.weight``, …, as a path, ``hf://`` or ``https://`` address; or 'lpips' for
            the file in the installed ``lpips`` package. Defaults to None: all channels have the
            same weight.
        mean: Subtracted from the channels of images in [0, 1]. Defaults to ImageNet's.
        std: Divides the channels. Defaults to ImageNet's.
        input_size: Side in pixels to which images are resized, for networks with a fixed input
            size. Defaults to None: no resizing.

    Raises:
        ValueError: ``mean`` and ``std`` differ in length.
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self,
        backbone: dict | nn.Module,
        channel_weights: str | None = None,
        mean: Sequence[float] = IMAGENET_MEAN,
        std: Sequence[float] = IMAGENET_STD,
        input_size: int | None = None,
    ) -> None:
        super().__init__()
        if len(mean) != len(std):
            raise ValueError(f'mean and std must have one number for each channel of the network, got {mean} and {std}')
        network = MODELS.build(backbone) if isinstance(backbone, dict) else backbone
        # True if a trained module is given, or if its constructor loads it, as timm's does with
        # pretrained=True
        self._loaded = isinstance(backbone, nn.Module) or getattr(network, 'is_init', False)
        network.register_load_state_dict_pre_hook(self._note_loading)
        network.eval()  # not chained: in mmpretrain's backbones it returns None
        # a tuple, whose modules nn.Module does not register
        self._unregistered = (network.requires_grad_(False),)
        self.channel_weights_path = channel_weights
        self.channel_weights: list[Tensor] | None = None
        self.register_buffer('mean', torch.tensor(mean).view(-1, 1, 1), persistent=False)
        self.register_buffer('std', torch.tensor(std).view(-1, 1, 1), persistent=False)
        self.input_size = input_size

    @property
    def network(self) -> nn.Module:
        """The network whose features are compared."""
        return self._unregistered[0]

    def init_weights(self) -> None:
        """Load the network and the weights of the channels, and log their names."""
        if isinstance(self.network, BaseModule) and not self._loaded:
            init_weights(self.network)
        if self.channel_weights_path is not None:
            weights = load_channel_weights(self.channel_weights_path)
            self.channel_weights = [weight.to(self.mean.device) for weight in weights]
        self.network.requires_grad_(False).eval()
        self._is_init = True
        if self._loaded:
            print_log(f'perceptual loss: {self.describe()}', logger='current')

    def describe(self) -> str:
        """Name of the network and source of its weights, for the log."""
        init_cfg = getattr(self.network, 'init_cfg', None)
        source = init_cfg.get('checkpoint', init_cfg) if isinstance(init_cfg, dict) else 'its own constructor'
        text = f'features of {type(self.network).__name__}, weights from {source}'
        if self.channel_weights_path is None:
            return f'{text}; all channels have the same weight (this is not LPIPS)'
        return f'LPIPS: {text}; weights of the channels from {self.channel_weights_path}'

    def forward(self, reconstructions: Tensor, images: Tensor) -> Tensor:
        """Distance of each pair of images.

        Args:
            reconstructions: (B, C, H, W) in [0, 1].
            images: The same shape; they get no gradient.

        Returns:
            (B,), float32.

        Raises:
            CheckpointError: No weights were loaded into the network, or ``channel_weights`` do not
                fit it.
            ValueError: The shapes differ, or the network's features are pooled.
        """
        if not self._loaded:
            raise CheckpointError(
                f'the perceptual loss compares features of {type(self.network).__name__} with random weights: give its '
                "backbone an init_cfg=dict(type='addp_mm.Pretrained', checkpoint=…) and call init_weights(), or remove "
                'the perceptual loss'
            )
        if self.channel_weights_path is not None and self.channel_weights is None:
            raise CheckpointError(f'{self.channel_weights_path} is not loaded yet: call init_weights() first')
        if reconstructions.shape != images.shape:
            raise ValueError(
                f'reconstructions {tuple(reconstructions.shape)} and images {tuple(images.shape)} must '
                'have the same shape'
            )
        features = self._features(reconstructions)
        with torch.no_grad():
            targets = self._features(images)
        # the channels' weights also weight the layers; without them it is the mean of the layers
        share = 1 / len(features) if self.channel_weights is None else 1.0
        distances = [
            share * _distance(x, y, weights)
            for x, y, weights in zip(features, targets, self._weights_of_channels(features), strict=True)
        ]
        distance = sum(distances[1:], distances[0])
        return distance.unflatten(0, (len(images), -1)).mean(1)

    def _features(self, images: Tensor) -> list[Tensor]:
        """Features (B * groups, C, positions) of each layer."""
        x = (_groups_of_channels(images, len(self.mean)) - self.mean) / self.std
        if self.input_size is not None:
            x = F.interpolate(x, size=(self.input_size, self.input_size), mode='bilinear', antialias=True)
        layers = self.network(x)
        return [_unit_features(layer) for layer in (layers if isinstance(layers, (tuple, list)) else [layers])]

    def _weights_of_channels(self, features: list[Tensor]) -> Sequence[Tensor | None]:
        if self.channel_weights is None:
            return [None] * len(features)
        given, needed = [len(weight) for weight in self.channel_weights], [layer.shape[1] for layer in features]
        if given != needed:
            raise CheckpointError(
                f'{self.channel_weights_path} has weights for layers of {given} channels, but the layers of '
                f'{type(self.network).__name__} have {needed}'
            )
        return self.channel_weights

    def _note_loading(self, network: nn.Module, state_dict: dict, prefix: str, *_) -> None:
        self._loaded = all(prefix + name in state_dict for name, _ in network.named_parameters())

    def _apply(self, fn: Callable, recurse: bool = True) -> PerceptualLoss:
        """Move the network along with the module."""
        super()._apply(fn, recurse)
        self.network._apply(fn)  # noqa: SLF001  torch has no public hook for moving a module
        if self.channel_weights is not None:
            self.channel_weights = [fn(weight) for weight in self.channel_weights]
        return self


def load_channel_weights(path: str) -> list[Tensor]:
    """Load the weights of LPIPS for the channels of each layer.

    Args:
        path: File with the keys ``lin<layer>.model.1.weight``, or 'lpips' for VGG's file in the
            ``lpips`` package.

    Returns:
        (C,), float32, for each layer.

    Raises:
        CheckpointError: The package is not installed, or the file has no such keys.
    """
    if path == LPIPS_PACKAGE:
        spec = find_spec(LPIPS_PACKAGE)
        if spec is None or spec.origin is None:
            raise CheckpointError(
                "channel_weights='lpips' reads a file of the package lpips, which is not installed: "
                'run\n    pip install lpips\nor give the path of its vgg.pth'
            )
        path = str(Path(spec.origin).parent / 'weights' / 'v0.1' / 'vgg.pth')
    state_dict = find_state_dict(CheckpointLoader.load_checkpoint(path, 'cpu'), path)
    found = {
        int(match[1]): weight
        for key, weight in state_dict.items()
        if (match := re.fullmatch(r'lin(\d+)\.model\.1\.weight', key))
    }
    if not found or sorted(found) != list(range(len(found))):
        raise CheckpointError(
            f'{path} has no weights of channels (lin0.model.1.weight, …): give a file of LPIPS, such as '
            'weights/v0.1/vgg.pth of the package lpips'
        )
    return [found[layer].flatten().float() for layer in range(len(found))]


def _groups_of_channels(images: Tensor, size: int) -> Tensor:
    """(B, C, H, W) to (B * groups, size, H, W); the last channel pads the last group."""
    channels = images.shape[1]
    if channels == size:
        return images
    groups = math.ceil(channels / size)
    index = torch.arange(groups * size, device=images.device).clamp_max(channels - 1)
    return images[:, index].unflatten(1, (groups, size)).flatten(0, 1)


def _unit_features(layer: Tensor) -> Tensor:
    """A layer's features as (B, C, positions), float32, of length 1 at each position."""
    if layer.dim() == 4:
        layer = layer.flatten(2)
    elif layer.dim() == 3:
        layer = layer.transpose(1, 2)
    else:
        raise ValueError(
            f'the network of the perceptual loss returns features {tuple(layer.shape)}, but maps (B, C, h, w) or '
            "tokens (B, L, C) are needed: for ADDPViT set out_type='featmap' or 'raw'"
        )
    return F.normalize(layer.float(), dim=1, eps=1e-10)


def _distance(x: Tensor, y: Tensor, channel_weights: Tensor | None) -> Tensor:
    """Squared difference of (B, C, positions), summed over channels, averaged over positions."""
    squared = (x - y).square()
    if channel_weights is not None:
        squared = squared * channel_weights[:, None]
    return squared.sum(1).mean(1)
