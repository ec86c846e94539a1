# Copyright (c) addp_mm contributors. Apache-2.0.
"""What a generator and a discriminator learn from each other, and what keeps the discriminator in check."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from mmengine import dist
from torch import Tensor, nn


def hinge_discriminator_loss(real: Tensor, fake: Tensor) -> Tensor:
    """``(max(0, 1 - D(x)) + max(0, 1 + D(y))) / 2`` of logits of any shape, each averaged (arXiv 1705.02894)."""
    return 0.5 * (F.relu(1 - real).mean() + F.relu(1 + fake).mean())


def hinge_generator_loss(fake: Tensor) -> Tensor:
    """``-D(y)``, averaged."""
    return -fake.mean()


def r1_penalty(images: Tensor, logits: Tensor) -> Tensor:
    """Squared length of the gradient of an image's summed logits at the image, averaged (R1, arXiv 1801.04406).

    Args:
        images: Real images (B, C, H, W) that require a gradient.
        logits: The discriminator's (B, 1, h, w) of them.
    """
    (gradient,) = torch.autograd.grad(logits.sum(), images, create_graph=True)
    return gradient.square().sum((1, 2, 3)).mean()


def adaptive_weight(
    reconstruction_loss: Tensor, generator_loss: Tensor, last_layer: Tensor, maximum: float = 1e4
) -> Tensor:
    """Ratio of the lengths of both losses' gradients at the decoder's last layer (VQGAN, arXiv 2012.09841, eq. 7).

    The gradients are averaged over all processes, so that each uses the weight of the whole batch.

    Args:
        reconstruction_loss: Scalar; its graph is kept.
        generator_loss: Scalar; its graph is kept.
        last_layer: Weight of the layer.
        maximum: Upper bound of the ratio.

    Returns:
        Scalar without gradient.
    """
    lengths = []
    for loss in (reconstruction_loss, generator_loss):
        (gradient,) = torch.autograd.grad(loss, last_layer, retain_graph=True)
        gradient = gradient.detach().float().contiguous()
        dist.all_reduce(gradient, 'mean')
        lengths.append(gradient.norm())
    return (lengths[0] / (lengths[1] + 1e-4)).clamp(max=maximum)


class LeCAM(nn.Module):
    """Keeps the logits of real images near the moving mean of fake ones and the other way round (arXiv 2104.03310).

    ``E (D(x) - a_fake)^2 + E (D(y) - a_real)^2``, eq. 3 of the paper, where a are moving means of the mean logits. They
    start as those of the first batch, are those of all processes, and are used before the batch
    moves them.

    Args:
        decay: Of the moving means, in (0, 1).
    """

    def __init__(self, decay: float = 0.99) -> None:
        super().__init__()
        if not 0 < decay < 1:
            raise ValueError(f'the decay of LeCAM must lie in (0, 1), got {decay}')
        self.decay = decay
        self.register_buffer('means', torch.zeros(2))
        self.register_buffer('started', torch.zeros((), dtype=torch.bool))

    def forward(self, real: Tensor, fake: Tensor) -> Tensor:
        """Penalty of logits of any shape, a scalar; in training it moves the means."""
        batch = torch.stack([real.detach().float().mean(), fake.detach().float().mean()])
        dist.all_reduce(batch, 'mean')
        # a graph that is still to run backward must not see the buffer change
        means = torch.where(self.started, self.means, batch)
        if self.training:
            self.means.copy_(torch.lerp(batch, means, self.decay))
            self.started.fill_(True)
        return (real.float() - means[1]).square().mean() + (fake.float() - means[0]).square().mean()


@dataclass(frozen=True)
class AdversarialSchedule:
    """When the discriminator learns and from when on it counts, in iterations.

    Args:
        start: The discriminator begins to learn.
        alone: It learns for so many iterations before its judgement counts.
        ramp: From then on its weight rises linearly to the full one, within so many iterations.

    Raises:
        ValueError: If one is negative.

    Example:
        >>> schedule = AdversarialSchedule(start=100, alone=50, ramp=4)
        >>> [schedule.learns(i) for i in (99, 100)], [schedule.factor(i) for i in (149, 150, 151, 153, 160)]
        ([False, True], [0.0, 0.25, 0.5, 1.0, 1.0])
    """

    start: int = 0
    alone: int = 0
    ramp: int = 0

    def __post_init__(self) -> None:
        if min(self.start, self.alone, self.ramp) < 0:
            raise ValueError(f'start, alone and ramp of the discriminator must not be negative, got {self}')

    @property
    def counts_from(self) -> int:
        """The first iteration in which the discriminator counts."""
        return self.start + self.alone

    def learns(self, iteration: int) -> bool:
        """Whether the discriminator learns in an iteration (0 is the first)."""
        return iteration >= self.start

    def factor(self, iteration: int) -> float:
        """Share of the adversarial weight, in [0, 1]."""
        if iteration < self.counts_from:
            return 0.0
        return min(1.0, (iteration - self.counts_from + 1) / max(self.ramp, 1))
