# Copyright (c) addp_mm contributors. Apache-2.0.
"""Losses of a generator and a discriminator, regularisers and the schedule of the discriminator."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from mmengine import dist
from torch import Tensor, nn


def hinge_discriminator_loss(real: Tensor, fake: Tensor) -> Tensor:
    """Hinge loss of the discriminator (arXiv 1705.02894).

    Args:
        real: Logits D(x) of real images, any shape.
        fake: Logits D(y) of generated images, any shape.

    Returns:
        Scalar, ``(mean max(0, 1 - D(x)) + mean max(0, 1 + D(y))) / 2``.
    """
    return 0.5 * (F.relu(1 - real).mean() + F.relu(1 + fake).mean())


def hinge_generator_loss(fake: Tensor) -> Tensor:
    """Mean of ``-D(y)`` over the logits of generated images, a scalar."""
    return -fake.mean()


def r1_penalty(images: Tensor, logits: Tensor) -> Tensor:
    """Mean squared gradient norm of the discriminator at real images (R1, arXiv 1801.04406).

    Args:
        images: Real images (B, C, H, W) that require a gradient.
        logits: The discriminator's logits of them, (B, 1, h, w), summed for each image.

    Returns:
        Scalar.
    """
    (gradient,) = torch.autograd.grad(logits.sum(), images, create_graph=True)
    return gradient.square().sum((1, 2, 3)).mean()


def adaptive_weight(
    reconstruction_loss: Tensor, generator_loss: Tensor, last_layer: Tensor, maximum: float = 1e4
) -> Tensor:
    """Ratio of the gradient norms of both losses at the decoder's last layer.

    Source: VQGAN, arXiv 2012.09841, eq. 7. The gradients are averaged over all processes, so that
    all use the weight of the whole batch.

    Args:
        reconstruction_loss: Scalar; its graph is kept.
        generator_loss: Scalar; its graph is kept.
        last_layer: Weight of the layer.
        maximum: Upper bound of the ratio. Defaults to 1e4.

    Returns:
        Scalar without gradient.
    """
    norms = []
    for loss in (reconstruction_loss, generator_loss):
        (gradient,) = torch.autograd.grad(loss, last_layer, retain_graph=True)
        gradient = gradient.detach().float().contiguous()
        dist.all_reduce(gradient, 'mean')
        norms.append(gradient.norm())
    return (norms[0] / (norms[1] + 1e-4)).clamp(max=maximum)


class LeCAM(nn.Module):
    """Pull logits of real images to the moving mean of fake ones, and vice versa.

    The penalty is ``E (D(x) - a_fake)^2 + E (D(y) - a_real)^2`` (LeCAM, arXiv 2104.03310, eq. 3),
    where the a are moving means of the mean logits of all processes. They start with the values of
    the first batch. A batch is penalised before it updates them.

    Args:
        decay: Decay of the moving means, in (0, 1). Defaults to 0.99.

    Raises:
        ValueError: The decay is outside (0, 1).
    """

    means: Tensor
    started: Tensor

    def __init__(self, decay: float = 0.99) -> None:
        super().__init__()
        if not 0 < decay < 1:
            raise ValueError(f'the decay of LeCAM must be in (0, 1), got {decay}')
        self.decay = decay
        self.register_buffer('means', torch.zeros(2))
        self.register_buffer('started', torch.zeros((), dtype=torch.bool))

    def forward(self, real: Tensor, fake: Tensor) -> Tensor:
        """Penalty of logits of any shape, a scalar. In training mode the means are updated."""
        batch = torch.stack([real.detach().float().mean(), fake.detach().float().mean()])
        dist.all_reduce(batch, 'mean')
        # A copy: the buffer must not change before the graph has run backward.
        means = torch.where(self.started, self.means, batch)
        if self.training:
            self.means.copy_(torch.lerp(batch, means, self.decay))
            self.started.fill_(True)
        return (real.float() - means[1]).square().mean() + (fake.float() - means[0]).square().mean()


@dataclass(frozen=True)
class AdversarialSchedule:
    """Iterations in which the discriminator learns and the generator uses it.

    Args:
        start: First iteration in which the discriminator learns. Defaults to 0.
        alone: Number of iterations in which it learns without any effect on the generator. Defaults
            to 0.
        ramp: Number of iterations in which its weight then rises linearly to the full one. Defaults
            to 0.

    Raises:
        ValueError: A number is negative.

    Example:
        >>> schedule = AdversarialSchedule(start=100, alone=50, ramp=4)
        >>> [schedule.learns(i) for i in (99, 100)]
        [False, True]
        >>> [schedule.factor(i) for i in (149, 150, 151, 153, 160)]
        [0.0, 0.25, 0.5, 1.0, 1.0]
    """

    start: int = 0
    alone: int = 0
    ramp: int = 0

    def __post_init__(self) -> None:
        if min(self.start, self.alone, self.ramp) < 0:
            raise ValueError(f'start, alone and ramp of the discriminator must not be negative, got {self}')

    @property
    def counts_from(self) -> int:
        """The first iteration in which the generator uses the discriminator."""
        return self.start + self.alone

    def learns(self, iteration: int) -> bool:
        """Whether the discriminator learns in an iteration (0 is the first)."""
        return iteration >= self.start

    def factor(self, iteration: int) -> float:
        """Share of the adversarial weight, in [0, 1]."""
        if iteration < self.counts_from:
            return 0.0
        return min(1.0, (iteration - self.counts_from + 1) / max(self.ramp, 1))
