# Copyright (c) addp_mm contributors. Apache-2.0.
"""Networks whose features the Fréchet distance compares."""

from __future__ import annotations

import hashlib
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
from addp_mm.checkpoints.fingerprint import module_fingerprint
from addp_mm.checkpoints.reading import load_checkpoint_file
from addp_mm.checkpoints.state_dict import find_state_dict
from addp_mm.errors import UserError
from addp_mm.registry import METRICS, MODELS

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
INCEPTION_URL = (
    'https://github.com/toshas/torch-fidelity/releases/download/v0.2.0/weights-inception-2015-12-05-6726825d.pth'
)
_INCEPTION_DIGEST = '6726825d'  # start of the SHA-256 of the file, as its name says
_INSTEAD = (
    "or compare features of another network by extractor=dict(type='addp_mm.BackboneFeatures', …), whose "
    'distances are no FID'
)


class FeatureExtractor(nn.Module):
    """Base: images, uint8 (B, C, H, W), to features (B, D), without gradient and in eval mode.

    Attributes:
        name (str): What the network is called in the output.
        fingerprint (str): SHA-256 of its weights and of all that shapes its features.
        is_inception (bool): Whether its Fréchet distance is the FID: Inception with the weights of
            FID.
    """

    name: str
    fingerprint: str
    is_inception = False

    def key(self, metric: str) -> str:
        """``metric``, followed by the name of the network where that is not FID's Inception."""
        return metric if self.is_inception else f'{metric}[{self.name}]'

    def train(self, mode: bool = True) -> FeatureExtractor:
        return super().train(False)


@METRICS.register_module()
class InceptionFeatures(FeatureExtractor):
    """The 2048 features of FID's Inception-v3 (arXiv 1706.08500), through torch-fidelity.

    Network, TensorFlow's way to resize to 299 pixels and weights are those of the original FID
    code. A grey image is repeated to three channels.

    Args:
        weights: File by path or ``hf://``. By default FID's, which are downloaded once to torch's
            cache. A distance that other weights give bears the start of their SHA-256 in its name.

    Raises:
        UserError: If torch-fidelity is not installed.
        CheckpointError: If the weights cannot be had, or are not those of this network.
    """

    def __init__(self, weights: str | None = None) -> None:
        super().__init__()
        if find_spec('torch_fidelity') is None:
            raise UserError(
                'FID reads features of Inception through torch-fidelity, which is not installed: type\n'
                f'    pip install torch-fidelity\n{_INSTEAD}'
            )
        state_dict, digest = _read_inception(weights)
        self.network = _build_inception(state_dict, weights or INCEPTION_URL)
        self.is_inception = digest.startswith(_INCEPTION_DIGEST)
        self.name = 'inception-v3' if self.is_inception else f'inception-v3-{digest[:8]}'
        self.fingerprint = module_fingerprint(self.network, 'torch-fidelity inception-v3, 2048 features')

    @torch.no_grad()
    def forward(self, images: Tensor) -> Tensor:
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
            f'no weights of Inception: {error}\nGive their path by '
            f"extractor=dict(type='addp_mm.InceptionFeatures', weights=…), {_INSTEAD}."
        ) from error
    digest = hashlib.sha256(Path(path).expanduser().read_bytes()).hexdigest()
    return find_state_dict(checkpoint, path), digest


def _build_inception(state_dict: dict[str, Tensor], source: str) -> nn.Module:
    from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3

    # torch-fidelity unpickles whatever its file holds; it is given the tensors that were read
    # safely
    buffer = io.BytesIO()
    torch.save(state_dict, buffer)
    buffer.seek(0)
    try:
        return FeatureExtractorInceptionV3('inception-v3', ['2048'], feature_extractor_weights_path=buffer)
    except RuntimeError as error:
        raise CheckpointError(
            f"{source} does not hold the weights of FID's Inception-v3 in torch-fidelity's layout "
            f'({str(error).splitlines()[0]}). Take {INCEPTION_URL}.'
        ) from error


@METRICS.register_module()
class BackboneFeatures(FeatureExtractor):
    """Features of any registered backbone, where Inception's weights may not be used or do not fit the images.

    The output says the ``name``: distances in another network's features are no FID and compare
    with nothing but distances in the same features.

    Args:
        backbone: Config of a module from images to vectors (B, D) or maps (B, D, h, w), which are
            averaged over their places; of several outputs the last counts. Its ``init_cfg`` loads
            the weights.
        name: What the output calls it, such as 'addp-vit-nano-p8': letters, digits, '.', '_' and
            '-'.
        mean: Subtracted from the channels of images in [0, 1]; ImageNet's by default.
        std: Divides them.
        input_size: Side in pixels to which images are resized first (bilinear, antialiased); None
            keeps their size.

    Raises:
        ValueError: If an option is out of its range.
        CheckpointError: If the backbone's weights were not loaded.
    """

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
                f'name of the extractor: letters, digits, ".", "_" and "-", and not Inception, which '
                f'FID is of; got {name!r}'
            )
        if len(mean) != len(std):
            raise ValueError(f'mean and std must have one number for each channel, got {mean} and {std}')
        network = MODELS.build(backbone)
        loaded = getattr(network, 'is_init', False)  # as timm's by its own constructor, with pretrained=True
        if not loaded:
            loaded = _initialise(network)
        if not loaded:
            raise CheckpointError(
                f'{name}: not all weights of {type(network).__name__} were loaded, and features of random weights tell '
                "nothing: give backbone an init_cfg=dict(type='addp_mm.Pretrained', checkpoint=…) that has them all"
            )
        self.name = name
        self.network = network.requires_grad_(False)
        self.network.eval()  # mmpretrain's backbones return nothing from it
        self.register_buffer('mean', torch.tensor(mean).view(-1, 1, 1), persistent=False)
        self.register_buffer('std', torch.tensor(std).view(-1, 1, 1), persistent=False)
        self.input_size = input_size
        built_from = {key: value for key, value in backbone.items() if key != 'init_cfg'}
        self.fingerprint = module_fingerprint(network, built_from, list(mean), list(std), input_size)

    @torch.no_grad()
    def forward(self, images: Tensor) -> Tensor:
        x = _in_channels(images, len(self.mean), self.name).float() / 255
        if self.input_size is not None:
            x = F.interpolate(x, size=(self.input_size, self.input_size), mode='bilinear', antialias=True)
        features = self.network((x - self.mean) / self.std)
        features = features[-1] if isinstance(features, (tuple, list)) else features
        if features.dim() == 4:
            features = features.mean((2, 3))
        if features.dim() != 2:
            raise ValueError(
                f'{self.name} gives features {tuple(features.shape)}; needed are vectors (B, D) or maps '
                "(B, D, h, w): for ADDPViT, out_type='avg_featmap' or 'cls_token'"
            )
        return features


def _initialise(network: nn.Module) -> bool:
    """Run the network's ``init_weights``; whether that loaded a weight for each of its parameters."""
    loaded = []

    def note(module: nn.Module, state_dict: dict, prefix: str, *_) -> None:
        loaded.append(all(prefix + name in state_dict for name, _ in network.named_parameters()))

    hook = network.register_load_state_dict_pre_hook(note)
    if hasattr(network, 'init_weights'):
        network.init_weights()
    hook.remove()
    return any(loaded)


def _in_channels(images: Tensor, channels: int, name: str) -> Tensor:
    """Grey images repeated to the network's channels; others must fit."""
    if images.dtype != torch.uint8:
        raise TypeError(f'features are extracted from uint8 images, got {images.dtype}')
    if images.shape[1] == 1:
        return images.expand(-1, channels, -1, -1)
    if images.shape[1] != channels:
        raise ValueError(
            f'{name} takes {channels} channels, and the images have {images.shape[1]}: give a backbone of '
            f'in_channels={images.shape[1]}, with a mean and a std for each channel'
        )
    return images


def build_extractor(extractor: dict | FeatureExtractor | None) -> FeatureExtractor:
    """The extractor of a config, or itself; Inception with FID's weights where it is None."""
    if isinstance(extractor, FeatureExtractor):
        return extractor
    return METRICS.build(extractor or dict(type='addp_mm.InceptionFeatures'))
