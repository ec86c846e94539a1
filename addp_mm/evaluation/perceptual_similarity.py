# Copyright (c) addp_mm contributors. Apache-2.0.
"""LPIPS of reconstructions, computed by the package of its authors.

torchmetrics computes the same numbers (difference below 1e-7 with random networks), but its
public class downloads the network itself and does not accept a file of weights.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from importlib.util import find_spec

import numpy as np
import torch
from mmengine.evaluator import BaseMetric
from mmengine.runner.checkpoint import CheckpointLoader
from torch import nn

from addp_mm.checkpoints.errors import CheckpointError
from addp_mm.checkpoints.state_dict import find_state_dict
from addp_mm.errors import UserError
from addp_mm.evaluation.batches import stacked
from addp_mm.registry import METRICS

# Names of the networks in torchvision.
_TRUNKS = dict(alex='AlexNet', vgg='VGG16', squeeze='SqueezeNet1_1')


@METRICS.register_module()
class LearnedPerceptualSimilarity(BaseMetric):
    """Mean over images of LPIPS (arXiv 1801.03924), version 0.1; at least 0, lower is better.

    Reads ``image`` and ``reconstruction``, (C, H, W) in [0, 1] with one or three channels, of each
    prediction. The key names the network, such as ``lpips[alex]``, because numbers of different
    networks cannot be compared.

    Args:
        net: 'alex', which the authors recommend for measuring, 'vgg' or 'squeeze'. Defaults to
            'alex'.
        weights: torchvision's ImageNet weights of the network: a path, ``hf://`` or ``https://``
            address; torchvision's own address if None. The package contains the weights of the
            linear layers. Defaults to None.
        collect_device: See :class:`mmengine.evaluator.BaseMetric`. Defaults to 'cpu'.
        prefix: See :class:`mmengine.evaluator.BaseMetric`. Defaults to None.

    Raises:
        UserError: The package lpips is not installed.
        CheckpointError: The weights cannot be read or do not fit.
    """

    default_prefix = 'reconstruction'

    def __init__(
        self, net: str = 'alex', weights: str | None = None, collect_device: str = 'cpu', prefix: str | None = None
    ) -> None:
        super().__init__(collect_device, prefix)
        if net not in _TRUNKS:
            raise ValueError(f'net must be one of {tuple(_TRUNKS)}, got {net!r}')
        self.net = net
        self.model = _build_lpips(net, weights)

    @torch.no_grad()
    def process(self, data_batch: dict, data_samples: Sequence[dict]) -> None:  # noqa: ARG002  # mmengine's signature
        """Keep the LPIPS of each image."""
        for images, reconstructions in stacked(data_samples, 'image', 'reconstruction'):
            if images.shape[1] not in (1, 3):
                raise ValueError(
                    f'LPIPS needs images with 1 or 3 channels, but these have {images.shape[1]} channels. Remove '
                    'LearnedPerceptualSimilarity from the evaluator'
                )
            self.model.to(images.device)
            pair = (batch.float().expand(-1, 3, -1, -1) for batch in (images, reconstructions))
            self.results.extend(self.model(*pair, normalize=True).flatten().tolist())

    def compute_metrics(self, results: list[float]) -> dict[str, float]:
        """Average the images."""
        return {f'lpips[{self.net}]': float(np.mean(results))}


def _build_lpips(net: str, weights: str | None) -> nn.Module:
    if find_spec('lpips') is None:
        raise UserError(
            'LPIPS needs the package lpips, which is not installed. Type\n    pip install lpips\n'
            'or remove LearnedPerceptualSimilarity from the evaluator'
        )
    import lpips
    from torchvision.models import get_weight

    published = get_weight(f'{_TRUNKS[net]}_Weights.IMAGENET1K_V1').url
    source = weights or published
    try:
        given = find_state_dict(CheckpointLoader.load_checkpoint(source, 'cpu'), source)
    except CheckpointError as error:
        raise CheckpointError(
            f"the weights for LPIPS cannot be read: {error}\nGive the path of torchvision's file: weights=…, or "
            'remove LearnedPerceptualSimilarity from the evaluator.'
        ) from error
    with warnings.catch_warnings():
        warnings.simplefilter('ignore', UserWarning)  # lpips uses a deprecated argument of torchvision
        model = lpips.LPIPS(net=net, pnet_rand=True, verbose=False)
    # slice1.0.weight in lpips is features.0.weight in torchvision.
    own = {name: f'features.{name.partition(".")[2]}' for name in model.net.state_dict()}
    missing = [theirs for theirs in own.values() if theirs not in given]
    if missing:
        raise CheckpointError(
            f"{source} has no {missing[0]}. Give the weights of torchvision's {_TRUNKS[net]}: {published}"
        )
    try:
        model.net.load_state_dict({name: given[theirs] for name, theirs in own.items()})
    except RuntimeError as error:
        raise CheckpointError(f'{source} does not fit {_TRUNKS[net]}: {error}') from error
    return model.requires_grad_(False).eval()
