# Copyright (c) addp_mm contributors. Apache-2.0.
"""Losses, normalisation, and layers that resample or mask a map."""

import torch
import torch.nn.functional as F
import torchvision
from mmcv import ops
from mmcv.ops.sync_bn import SyncBatchNormFunction
from torch import Tensor

from addp_mm.benchmark.operators.measured import Inputs, differentiated, measured


@measured('torchvision')
def sigmoid_focal_loss(make: Inputs):
    """20,000 anchors and 80 classes, forward and backward."""
    logits = make.rand(make.size(20000), 80, grad=True)
    labels = make.whole(81, len(logits))  # 80 is the background
    wanted = F.one_hot(labels, 81)[:, :80].float()
    own = differentiated(lambda x: ops.sigmoid_focal_loss(x, labels, 2.0, 0.25, None, 'none'), logits)
    return own, differentiated(lambda x: torchvision.ops.sigmoid_focal_loss(x, wanted, 0.25, 2.0), logits)


@measured('softmax and logarithm of torch')
def softmax_focal_loss(make: Inputs):
    """20,000 anchors and 80 classes, forward and backward."""
    logits = make.rand(make.size(20000), 80, grad=True)
    labels = make.whole(80, len(logits))

    def plain(x: Tensor) -> Tensor:
        logs = x.log_softmax(1).gather(1, labels[:, None])
        return -0.25 * ((1 - logs.exp()) ** 2 * logs).sum()

    own = differentiated(lambda x: ops.softmax_focal_loss(x, labels, 2.0, 0.25, None, 'sum'), logits)
    return own, differentiated(plain, logits)


@measured('unfold and a product')
def carafe(make: Inputs):
    """A map of 64 x 64 x 64 to twice the size, kernel 5, forward and backward."""
    side = make.size(64)
    maps = make.rand(1, 64, side, side, grad=True)
    masks = make.rand(1, 25, 2 * side, 2 * side, grad=True)

    def plain(x: Tensor, m: Tensor) -> Tensor:
        windows = F.unfold(x, 5, padding=2).view(1, 64 * 25, side, side)
        windows = F.interpolate(windows, scale_factor=2).view(1, 64, 25, 2 * side, 2 * side)
        return (windows * m[:, None]).sum(2)

    own = differentiated(lambda x, m: ops.carafe(x, m, 5, 1, 2), maps, masks)
    return own, differentiated(plain, maps, masks)


@measured('a convolution of the whole map')
def masked_conv(make: Inputs):
    """3 x 3 at half of the positions of a map of 64 x 64 x 64."""
    side = make.size(64)
    maps, mask = make.rand(1, 64, side, side), (make.rand(1, side, side) > 0.5).float()
    weight, bias = make.rand(64, 64, 3, 3), make.rand(64)

    def own() -> Tensor:
        with torch.no_grad():
            return ops.masked_conv2d(maps, mask, weight, bias, 1)

    return own, lambda: F.conv2d(maps, weight, bias, padding=1) * mask


@measured('one index of all')
def psa_mask(make: Inputs):
    """Masks of 97 x 97 for a map of 49 x 49, forward and backward."""
    side = make.size(49)
    size = 2 * side - 1
    layer = ops.PSAMask('collect', (size, size))
    masks = make.rand(1, size**2, side, side, grad=True)
    numbers = torch.arange(masks.numel(), device=make.device).view(size, size, side, side)
    middle = range(side - 1, -1, -1)  # where the map starts in the mask of its first, second, ... row
    rows = [
        torch.stack([numbers[i : i + side, j : j + side, side - 1 - i, side - 1 - j] for j in middle]) for i in middle
    ]
    index = torch.stack(rows).permute(2, 3, 0, 1).reshape(1, side**2, side, side)
    return differentiated(layer, masks), differentiated(lambda x: x.flatten()[index], masks)


@measured('batch norm of torch')
def sync_bn(make: Inputs):
    """2 maps of 256 x 64 x 64 on one rank, forward and backward."""
    side = make.size(64)
    maps = make.rand(2, 256, side, side, grad=True)
    weight, bias = make.rand(256, grad=True), make.rand(256, grad=True)
    mean, var = make.rand(256), make.rand(256)

    def own(x: Tensor, w: Tensor, b: Tensor) -> Tensor:
        return SyncBatchNormFunction.apply(x, mean, var, w, b, 0.1, 1e-5, None, 1, 'default')

    def plain(x: Tensor, w: Tensor, b: Tensor) -> Tensor:
        return F.batch_norm(x, mean, var, w, b, True, 0.1, 1e-5)

    return differentiated(own, maps, weight, bias), differentiated(plain, maps, weight, bias)
