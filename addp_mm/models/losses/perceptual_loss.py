# Copyright (c) addp_mm contributors. Apache-2.0.
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
from addp_mm.checkpoints.state_dict import find_state_dict
from addp_mm.registry import MODELS

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
LPIPS_PACKAGE = 'lpips'


@MODELS.register_module()
class PerceptualLoss(BaseModule):
    """Distance of two images in the features of a frozen network.

    At each place of each layer the features are brought to length 1; their squared difference is
    summed over the channels and averaged over the places (LPIPS, arXiv 1801.03924, eq. 1). Two
    networks serve:

    - LPIPS: ``backbone=dict(type='addp_mm.VGG16Features', init_cfg=…)`` with ``channel_weights``.
      Its numbers are those of the ``lpips`` package for ``net='vgg'``.
    - Where those weights may not be used: any registered backbone, without ``channel_weights``:
      ``dict(type='addp_mm.ADDPViT', out_indices=(2, 5), out_type='featmap', init_cfg=dict(type='addp_mm.Pretrained',
      …))`` or ``dict(type='mmpretrain.TIMMBackbone', …, features_only=True, pretrained=True)``.

    The network is no submodule: it stays in eval mode and out of optimizers, checkpoints and moving
    averages, and ``init_weights`` loads it again. A log line says which network was used.

    The network sees as many channels as ``mean`` has. Images with other numbers of channels are
    taken apart into groups of so many neighbouring channels (the last channel fills up the last
    group; a grey image is repeated), and the distances of the groups are averaged.

    Args:
        backbone: Config of a module from images to feature maps (B, C, h, w) or tokens (B, L, C),
            one or a tuple; or the module.
        channel_weights: Learned weights of the channels (LPIPS): a file with the keys
            ``lin0.model.1.weight``, …, by path, ``hf://`` or ``https://``; or 'lpips' for the file within the installed ``lpips`` package.
        layer_weights: Weight of each layer; by default 1 with ``channel_weights`` and else 1 /
            number of layers.
        mean: Subtracted from the channels of images in [0, 1]; ImageNet's by default.
        std: Divides them.
        input_size: Side in pixels to which images are resized first, where the network takes one
            size only.

    Raises:
        ValueError: If an option does not fit the others, or the features are pooled.
        CheckpointError: If the network's weights were not loaded, or ``channel_weights`` do not fit
            it.
    """

    def __init__(
        self,
        backbone: dict | nn.Module,
        channel_weights: str | None = None,
        layer_weights: Sequence[float] | None = None,
        mean: Sequence[float] = IMAGENET_MEAN,
        std: Sequence[float] = IMAGENET_STD,
        input_size: int | None = None,
    ) -> None:
        super().__init__()
        if len(mean) != len(std):
            raise ValueError(f'mean and std must have one number for each channel of the network, got {mean} and {std}')
        network = MODELS.build(backbone) if isinstance(backbone, dict) else backbone
        # given as a trained module, or loaded by its own constructor, as timm's with
        # pretrained=True
        self._loaded = isinstance(backbone, nn.Module) or getattr(network, 'is_init', False)
        network.register_load_state_dict_pre_hook(self._note_loading)
        network.eval()  # mmpretrain's backbones return nothing from it
        # past nn.Module: see the docstring
        self.__dict__['network'] = network.requires_grad_(False)
        self.channel_weights_path = channel_weights
        self.__dict__['channel_weights'] = None
        self.layer_weights = None if layer_weights is None else tuple(layer_weights)
        self.register_buffer('mean', torch.tensor(mean).view(-1, 1, 1), persistent=False)
        self.register_buffer('std', torch.tensor(std).view(-1, 1, 1), persistent=False)
        self.input_size = input_size

    def init_weights(self) -> None:
        """Load the network and the weights of the channels, and log which they are."""
        if hasattr(self.network, 'init_weights') and not self._loaded:
            self.network.init_weights()
        if self.channel_weights_path is not None:
            self.__dict__['channel_weights'] = [
                weight.to(self.mean.device) for weight in load_channel_weights(self.channel_weights_path)
            ]
        self.network.requires_grad_(False).eval()
        self._is_init = True
        if self._loaded:
            print_log(f'perceptual loss: {self.describe()}', logger='current')

    def describe(self) -> str:
        """Which network compares, and where its weights come from."""
        init_cfg = getattr(self.network, 'init_cfg', None)
        source = init_cfg.get('checkpoint', init_cfg) if isinstance(init_cfg, dict) else 'its own constructor'
        words = f'features of {type(self.network).__name__}, weights from {source}'
        if self.channel_weights_path is None:
            return f'{words}; channels count alike (this is not LPIPS)'
        return f'LPIPS: {words}; weights of the channels from {self.channel_weights_path}'

    def forward(self, reconstructions: Tensor, images: Tensor) -> Tensor:
        """Distance of each pair of images (B, C, H, W) in [0, 1]: (B), float32; no gradient to ``images``.

        Raises:
            CheckpointError: If no weights were loaded into the network.
        """
        if not self._loaded:
            raise CheckpointError(
                f'the perceptual loss compares features of {type(self.network).__name__} with random weights: give its '
                "backbone an init_cfg=dict(type='addp_mm.Pretrained', checkpoint=…) and call init_weights(), or leave "
                'out the perceptual loss'
            )
        if self.channel_weights_path is not None and self.channel_weights is None:
            raise CheckpointError(f'{self.channel_weights_path} was not read: call init_weights() first')
        if reconstructions.shape != images.shape:
            raise ValueError(
                f'reconstructions {tuple(reconstructions.shape)} and images {tuple(images.shape)} must '
                'have the same shape'
            )
        features = self._features(reconstructions)
        with torch.no_grad():
            targets = self._features(images)
        weights = self._weights_of_layers(features)
        channels = self._weights_of_channels(features)
        distance = sum(
            weight * _distance(x, y, channel)
            for weight, x, y, channel in zip(weights, features, targets, channels, strict=True)
        )
        return distance.unflatten(0, (len(images), -1)).mean(1)

    def _features(self, images: Tensor) -> list[Tensor]:
        """Features (B * groups, C, places) of each layer."""
        x = (_groups_of_channels(images, len(self.mean)) - self.mean) / self.std
        if self.input_size is not None:
            x = F.interpolate(x, size=(self.input_size, self.input_size), mode='bilinear', antialias=True)
        layers = self.network(x)
        return [_places(layer) for layer in (layers if isinstance(layers, (tuple, list)) else [layers])]

    def _weights_of_layers(self, features: list[Tensor]) -> Sequence[float]:
        if self.layer_weights is None:
            return [1.0 if self.channel_weights is not None else 1 / len(features)] * len(features)
        if len(self.layer_weights) != len(features):
            raise ValueError(
                f'layer_weights has {len(self.layer_weights)} numbers, the network gives {len(features)} '
                'layers (its out_indices)'
            )
        return self.layer_weights

    def _weights_of_channels(self, features: list[Tensor]) -> Sequence[Tensor | None]:
        if self.channel_weights is None:
            return [None] * len(features)
        given, needed = ([len(weight) for weight in self.channel_weights], [layer.shape[1] for layer in features])
        if given != needed:
            raise CheckpointError(
                f'{self.channel_weights_path} weighs layers of {given} channels; those of '
                f'{type(self.network).__name__} have {needed}'
            )
        return self.channel_weights

    def _note_loading(self, network: nn.Module, state_dict: dict, prefix: str, *_) -> None:
        self._loaded = all(prefix + name in state_dict for name, _ in network.named_parameters())

    def _apply(self, fn: Callable, recurse: bool = True) -> PerceptualLoss:
        """Move the network along with the module."""
        super()._apply(fn, recurse)
        self.network._apply(fn)
        if self.channel_weights is not None:
            self.__dict__['channel_weights'] = [fn(weight) for weight in self.channel_weights]
        return self


def load_channel_weights(path: str) -> list[Tensor]:
    """Weights of the channels of each layer, as LPIPS is published: float32 (C) for each layer.

    Args:
        path: File with the keys ``lin<layer>.model.1.weight``, or 'lpips' for VGG's within the
            ``lpips`` package.

    Raises:
        CheckpointError: If the package is not installed, or the file has no such keys.
    """
    if path == LPIPS_PACKAGE:
        spec = find_spec(LPIPS_PACKAGE)
        if spec is None:
            raise CheckpointError(
                "channel_weights='lpips' reads a file of the package lpips, which is not installed: "
                'type\n    pip install lpips\nor give the path of its vgg.pth'
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
            f'{path} has no weights of channels, lin0.model.1.weight and so on: give a file of '
            'LPIPS, such as weights/v0.1/vgg.pth of the package lpips'
        )
    return [found[layer].flatten().float() for layer in range(len(found))]


def _groups_of_channels(images: Tensor, size: int) -> Tensor:
    """(B, C, H, W) to (B * groups, size, H, W); the last channel fills up the last group."""
    channels = images.shape[1]
    if channels == size:
        return images
    groups = math.ceil(channels / size)
    index = torch.arange(groups * size, device=images.device).clamp_max(channels - 1)
    return images[:, index].unflatten(1, (groups, size)).flatten(0, 1)


def _places(layer: Tensor) -> Tensor:
    """A layer's features as (B, C, places), float32, of length 1 at each place."""
    if layer.dim() == 4:
        layer = layer.flatten(2)
    elif layer.dim() == 3:
        layer = layer.transpose(1, 2)
    else:
        raise ValueError(
            f'the network of the perceptual loss gives features {tuple(layer.shape)}; needed are maps '
            "(B, C, h, w) or tokens (B, L, C): for ADDPViT, out_type='featmap' or 'raw'"
        )
    return F.normalize(layer.float(), dim=1, eps=1e-10)


def _distance(x: Tensor, y: Tensor, channel_weights: Tensor | None) -> Tensor:
    """(B): squared difference of (B, C, places), summed over channels, averaged over places."""
    squared = (x - y).square()
    if channel_weights is not None:
        squared = squared * channel_weights[:, None]
    return squared.sum(1).mean(1)
