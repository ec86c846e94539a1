# Copyright (c) addp_mm contributors. Apache-2.0.
"""FID's Inception network, through torch-fidelity."""

from __future__ import annotations

import io
import os
from importlib.util import find_spec
from pathlib import Path

import torch
from mmengine.runner.checkpoint import CheckpointLoader
from torch import Tensor, nn

from addp_mm.checkpoints.errors import CheckpointError
from addp_mm.checkpoints.file_fingerprint import file_fingerprint
from addp_mm.checkpoints.fingerprint import module_fingerprint
from addp_mm.checkpoints.reading import load_checkpoint_file
from addp_mm.checkpoints.state_dict import find_state_dict
from addp_mm.errors import UserError
from addp_mm.evaluation.feature_extractors import FeatureExtractor, in_channels
from addp_mm.registry import METRICS

INCEPTION_URL = (
    'https://github.com/toshas/torch-fidelity/releases/download/v0.2.0/weights-inception-2015-12-05-6726825d.pth'
)
_INCEPTION_DIGEST = '6726825d'  # start of the file's SHA-256, as in its name
_INSTEAD = (
    'or use the features of another network: --extractor CONFIG of a tool, in a config '
    "extractor=dict(type='addp_mm.BackboneFeatures', …). "
    'The distance is then not an FID'
)
_HOW_TO_GET = (
    f'On a machine with a network, get them by\n    curl -LO {INCEPTION_URL}\nand give their path: --weights FILE of '
    "addp evaluate-images, in a config extractor=dict(type='addp_mm.InceptionFeatures', weights=FILE)"
)


@METRICS.register_module()
class InceptionFeatures(FeatureExtractor):
    """The 2048 features of FID's Inception-v3 (arXiv 1706.08500), through torch-fidelity.

    The network, its weights and the resizing to 299 pixels are those of the original FID code. A
    grey image is repeated to three channels. The logits are those of torch-fidelity's inception
    score, without the bias.

    Args:
        weights: Path or ``hf://`` address of the weights. If it is None, FID's weights are read
            from torch's cache, where torch-fidelity looks for them too, and downloaded into it
            once. With other weights, the name of the extractor contains the start of their SHA-256.
            Defaults to None.

    Raises:
        UserError: torch-fidelity is not installed.
        CheckpointError: The weights cannot be read, or do not fit the network.
    """

    has_logits = True
    dims = 2048

    def __init__(self, weights: str | None = None) -> None:
        super().__init__()
        if find_spec('torch_fidelity') is None:
            raise UserError(
                'FID takes the features of Inception from torch-fidelity, which is not installed. Type\n'
                f"    pip install 'addp_mm[fidelity]'\n{_INSTEAD}"
            )
        state_dict, digest = _read_inception(weights)
        self.network = _build_inception(state_dict, weights or INCEPTION_URL)
        self.is_inception = digest.startswith(_INCEPTION_DIGEST)
        self.name = 'inception-v3' if self.is_inception else f'inception-v3-{digest[:8]}'
        self.fingerprint = module_fingerprint(self.network, 'torch-fidelity inception-v3, 2048 features')

    def forward(self, images: Tensor) -> Tensor:
        """Extract features (B, 2048) of images, uint8 (B, C, H, W)."""
        return self.with_logits(images)[0]

    @torch.no_grad()
    def with_logits(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Extract features (B, 2048) and logits (B, 1008) of images, uint8 (B, C, H, W)."""
        return self.network(in_channels(images, 3, self.name))


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
            f'the weights of Inception cannot be read: {error}\n{_HOW_TO_GET}, {_INSTEAD}.'
        ) from error
    digest = file_fingerprint(Path(path).expanduser())
    return find_state_dict(checkpoint, path), digest


def _build_inception(state_dict: dict[str, Tensor], source: str) -> nn.Module:
    from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3

    # torch-fidelity unpickles its file without checks, so it gets a file with tensors only.
    buffer = io.BytesIO()
    torch.save(state_dict, buffer)
    buffer.seek(0)
    layers = ['2048', 'logits_unbiased']
    try:
        return FeatureExtractorInceptionV3('inception-v3', layers, feature_extractor_weights_path=buffer)
    except RuntimeError as error:
        raise CheckpointError(
            f"{source} does not contain the weights of FID's Inception-v3 in torch-fidelity's layout "
            f'({str(error).splitlines()[0]}). Download {INCEPTION_URL}.'
        ) from error
