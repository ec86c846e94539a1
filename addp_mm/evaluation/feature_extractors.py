# Copyright (c) addp_mm contributors. Apache-2.0.
"""Networks that extract the features for the Fréchet distance."""

from __future__ import annotations

import io
import os
import re
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path

import torch
import torch.nn.functional as F
from mmengine.runner.checkpoint import CheckpointLoader
from torch import Tensor, nn

from addp_mm.checkpoints.errors import CheckpointError
from addp_mm.checkpoints.file_fingerprint import file_fingerprint
from addp_mm.checkpoints.fingerprint import module_fingerprint
from addp_mm.checkpoints.init_weights import init_weights
from addp_mm.checkpoints.reading import load_checkpoint_file
from addp_mm.checkpoints.state_dict import find_state_dict
from addp_mm.config.config_file import load_config
from addp_mm.errors import ConfigError, UserError
from addp_mm.imagenet import IMAGENET_MEAN, IMAGENET_STD
from addp_mm.registry import METRICS, MODELS

INCEPTION_URL = (
    'https://github.com/toshas/torch-fidelity/releases/download/v0.2.0/weights-inception-2015-12-05-6726825d.pth'
)
_INCEPTION_DIGEST = '6726825d'  # start of the file's SHA-256, as in its name
_INSTEAD = (
    'or use the features of another network: --extractor CONFIG of a tool, in a config '
    "extractor=dict(type='addp_mm.BackboneFeatures', …). "
    'The distance is then not an FID'
)


class FeatureExtractor(nn.Module):
    """Base class: images, uint8 (B, C, H, W), to features (B, D), without gradient.

    The network stays in eval mode.

    Attributes:
        name: Name of the network in the keys of metrics.
        fingerprint: SHA-256 of the weights and of all settings that change the features.
        is_inception: Whether the Fréchet distance of the features is the FID: Inception with the
            weights of the original FID.
    """

    name: str
    fingerprint: str
    is_inception = False

    def key(self, metric: str) -> str:
        """Return ``metric``, followed by the name of the network unless that is FID's Inception."""
        return metric if self.is_inception else f'{metric}[{self.name}]'

    def train(self, mode: bool = True) -> FeatureExtractor:  # noqa: ARG002  # torch's signature
        """Stay in eval mode."""
        return super().train(False)


@METRICS.register_module()
class InceptionFeatures(FeatureExtractor):
    """The 2048 features of FID's Inception-v3 (arXiv 1706.08500), through torch-fidelity.

    The network, its weights and the resizing to 299 pixels are those of the original FID code. A
    grey image is repeated to three channels.

    Args:
        weights: Path or ``hf://`` address of the weights. If it is None, FID's weights are
            downloaded once to torch's cache. With other weights, the name of the extractor
            contains the start of their SHA-256. Defaults to None.

    Raises:
        UserError: torch-fidelity is not installed.
        CheckpointError: The weights cannot be read, or do not fit the network.
    """

    def __init__(self, weights: str | None = None) -> None:
        super().__init__()
        if find_spec('torch_fidelity') is None:
            raise UserError(
                'FID takes the features of Inception from torch-fidelity, which is not installed. Type\n'
                f'    pip install torch-fidelity\n{_INSTEAD}'
            )
        state_dict, digest = _read_inception(weights)
        self.network = _build_inception(state_dict, weights or INCEPTION_URL)
        self.is_inception = digest.startswith(_INCEPTION_DIGEST)
        self.name = 'inception-v3' if self.is_inception else f'inception-v3-{digest[:8]}'
        self.fingerprint = module_fingerprint(self.network, 'torch-fidelity inception-v3, 2048 features')

    @torch.no_grad()
    def forward(self, images: Tensor) -> Tensor:
        """Extract features (B, 2048) of images, uint8 (B, C, H, W)."""
        (features,) = self.network(_in_channels(images, 3, self.name))
        return features


def _read_inception(weights: str | None) -> tuple[dict[str, Tensor], str]:
    """State dict and SHA-256 of the file."""
    try:
        if weights is None:
            checkpoint = CheckpointLoader.load_checkpoint(INCEPTION_URL, 'cpu')
            path = os.path.join(torch.hub.get_dir(), 'checkpoints', os.path.basename(INCEPTION_URL))
        else:
            path = weights
            if path.startswith('hf://'):
                from addp_mm.checkpoints.hub import download_from_hub

                path = download_from_hub(path)
            checkpoint = load_checkpoint_file(path)
    except CheckpointError as error:
        raise CheckpointError(
            f'the weights of Inception cannot be read: {error}\nGive their path: '
            f"extractor=dict(type='addp_mm.InceptionFeatures', weights=…), {_INSTEAD}."
        ) from error
    return find_state_dict(checkpoint, path), file_fingerprint(Path(path).expanduser())


def _build_inception(state_dict: dict[str, Tensor], source: str) -> nn.Module:
    from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3

    # torch-fidelity unpickles its file without checks, so it gets a file with tensors only.
    buffer = io.BytesIO()
    torch.save(state_dict, buffer)
    buffer.seek(0)
    try:
        return FeatureExtractorInceptionV3('inception-v3', ['2048'], feature_extractor_weights_path=buffer)
    except RuntimeError as error:
        raise CheckpointError(
            f"{source} does not contain the weights of FID's Inception-v3 in torch-fidelity's layout "
            f'({str(error).splitlines()[0]}). Download {INCEPTION_URL}.'
        ) from error


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

    @torch.no_grad()
    def forward(self, images: Tensor) -> Tensor:
        """Extract features (B, D) of images, uint8 (B, C, H, W)."""
        x = _in_channels(images, len(self.mean), self.name).float() / 255
        if self.input_size is not None:
            x = F.interpolate(x, size=(self.input_size, self.input_size), mode='bilinear', antialias=True)
        features = self.network((x - self.mean) / self.std)
        features = features[-1] if isinstance(features, (tuple, list)) else features
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


def _in_channels(images: Tensor, channels: int, name: str) -> Tensor:
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


def build_extractor(extractor: dict | FeatureExtractor | None) -> FeatureExtractor:
    """Build an extractor from a config; Inception with FID's weights from None."""
    if isinstance(extractor, FeatureExtractor):
        return extractor
    return METRICS.build(extractor or dict(type='addp_mm.InceptionFeatures'))


def extractor_of(config: str) -> dict:
    """The ``extractor`` that a config file defines.

    Raises:
        ConfigError: The file does not exist or has no ``extractor``.
    """
    cfg = load_config(config)
    if cfg.get('extractor') is None:
        raise ConfigError(f"{config} has no 'extractor'; see configs/_base_/evaluation")
    return cfg.extractor.to_dict()
