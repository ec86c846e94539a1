# Copyright (c) addp_mm contributors. Apache-2.0.
"""LPIPS of reconstructions, by the package of its authors."""

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

# the networks of the package by their names in torchvision
_TRUNKS = dict(alex='AlexNet', vgg='VGG16', squeeze='SqueezeNet1_1')


@METRICS.register_module()
class LearnedPerceptualSimilarity(BaseMetric):
    """Mean over images of LPIPS (arXiv 1801.03924), version 0.1, at least 0; lower is more alike.

    Reads ``image`` and ``reconstruction``, (C, H, W) in [0, 1] with one or three channels, of each
    prediction. The key names the network, as ``lpips[alex]``: numbers of different networks do not
    compare.

    Args:
        net: 'alex', which the authors recommend for measuring, 'vgg' or 'squeeze'.
        weights: Of the network, as torchvision publishes them for ImageNet, by path, ``hf://`` or
            ``https://``. torchvision's own address by default. The weights of the layers come with the package.
        collect_device: See :class:`mmengine.evaluator.BaseMetric`.
        prefix: See :class:`mmengine.evaluator.BaseMetric`.

    Raises:
        UserError: If the package lpips is not installed.
        CheckpointError: If the weights cannot be had or do not fit.
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
    def process(self, data_batch: dict, data_samples: Sequence[dict]) -> None:
        for images, reconstructions in stacked(data_samples, 'image', 'reconstruction'):
            if images.shape[1] not in (1, 3):
                raise ValueError(
                    f'LPIPS is learned on colour images; these have {images.shape[1]} channels: leave '
                    'LearnedPerceptualSimilarity out of the evaluator'
                )
            self.model.to(images.device)
            pair = (batch.float().expand(-1, 3, -1, -1) for batch in (images, reconstructions))
            self.results.extend(self.model(*pair, normalize=True).flatten().tolist())

    def compute_metrics(self, results: list[float]) -> dict[str, float]:
        return {f'lpips[{self.net}]': float(np.mean(results))}


def _build_lpips(net: str, weights: str | None) -> nn.Module:
    if find_spec('lpips') is None:
        raise UserError(
            'LPIPS is measured by the package lpips, which is not installed: type\n    pip install lpips\n'
            'or leave LearnedPerceptualSimilarity out of the evaluator'
        )
    import lpips
    from torchvision.models import get_weight

    published = get_weight(f'{_TRUNKS[net]}_Weights.IMAGENET1K_V1').url
    source = weights or published
    try:
        given = find_state_dict(CheckpointLoader.load_checkpoint(source, 'cpu'), source)
    except CheckpointError as error:
        raise CheckpointError(
            f"no weights for LPIPS: {error}\nGive the path of torchvision's file by weights=…, or "
            'leave LearnedPerceptualSimilarity out of the evaluator.'
        ) from error
    with warnings.catch_warnings():
        warnings.simplefilter('ignore', UserWarning)  # the package uses an old argument of torchvision's
        model = lpips.LPIPS(net=net, pnet_rand=True, verbose=False)
    # slice1.0.weight of the package is features.0.weight of torchvision
    own = {name: f'features.{name.partition(".")[2]}' for name in model.net.state_dict()}
    missing = [theirs for theirs in own.values() if theirs not in given]
    if missing:
        raise CheckpointError(
            f"{source} lacks {missing[0]}: give the weights of torchvision's {_TRUNKS[net]}, {published}"
        )
    try:
        model.net.load_state_dict({name: given[theirs] for name, theirs in own.items()})
    except RuntimeError as error:
        raise CheckpointError(f'{source} does not fit: {error}') from error
    return model.requires_grad_(False).eval()
