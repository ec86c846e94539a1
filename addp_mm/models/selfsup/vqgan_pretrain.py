# Copyright (c) addp_mm contributors. Apache-2.0.
"""Pre-training of a tokenizer against a discriminator."""

from __future__ import annotations

import torch
from mmengine import dist
from torch import Tensor, nn

from addp_mm.models.discriminators.patch_discriminator import frozen_logits
from addp_mm.models.losses.adversarial_loss import (
    AdversarialSchedule,
    LeCAM,
    adaptive_weight,
    hinge_discriminator_loss,
    hinge_generator_loss,
    r1_penalty,
)
from addp_mm.models.selfsup.build_component import build_component
from addp_mm.models.selfsup.tokenizer_pretrain import TokenizerPretrain
from addp_mm.registry import MODELS

_DISCRIMINATOR = 'discriminator_'


@MODELS.register_module()
class VQGANPretrain(TokenizerPretrain):
    """Training of a tokenizer against a discriminator (VQGAN, arXiv 2012.09841).

    The tokenizer's loss is that of :class:`TokenizerPretrain` plus ``weight * -D(y)``; the
    discriminator's is the hinge loss, optionally with LeCAM and R1. Both come from one forward pass
    with the same weights. The tokenizer's loss treats the discriminator's weights as constants, and
    the discriminator's loss treats the reconstructions as constants. One backward pass therefore
    serves both optimizers, and DistributedDataParallel sees each parameter once.

    Two optimizers train it. Set ``constructor='addp_mm.ComponentsOptimWrapperConstructor'``,
    ``tokenizer=dict(…)`` and ``discriminator=dict(…)`` in ``optim_wrapper``.

    Reconstructions can collapse when the adversarial loss starts. To prevent this, ``schedule``
    lets the discriminator learn alone first and then raises the weight slowly, and
    :class:`~addp_mm.engine.hooks.AdversarialStartHook` lowers ``adversarial_scale``. The log has
    the weight of the generator's loss (``adversarial_weight``), the mean logits of real images and
    reconstructions, and the share of patches that the discriminator classifies correctly.

    Args:
        tokenizer: Config of the tokenizer, or the module.
        discriminator: Config of the discriminator, or the module: images (B, C, H, W) in [0, 1] to
            logits. A config without ``in_channels`` gets the tokenizer's.
        adversarial_weight: Factor of the generator's loss. Defaults to 0.8.
        adaptive: Whether that factor is multiplied by the ratio of the gradients of reconstruction
            and generator loss at the decoder's last layer. Defaults to True.
        schedule: Arguments of :class:`~addp_mm.models.losses.adversarial_loss.AdversarialSchedule`:
            start, alone, ramp. Defaults to None: its defaults.
        lecam_weight: Factor of :class:`~addp_mm.models.losses.adversarial_loss.LeCAM`; 0: none. The
            paper's values are between 1e-4 and 1e-2. Defaults to 0.0.
        lecam_decay: Decay of its moving means. Defaults to 0.99.
        r1_weight: Gamma of R1, which is multiplied by one half; 0: none. For a discriminator
            without batch norm. Defaults to 0.0.
        r1_interval: Iterations between two computations of R1, which is multiplied by this number
            (arXiv 1912.04958, appendix B). Defaults to 16.
        mse_weight: Weight of the squared error; 0 as published. Defaults to 0.0.
        **settings: Arguments of :class:`TokenizerPretrain`.

    Raises:
        ValueError: An option is out of its range, or the discriminator's number of channels is
            not the tokenizer's.
    """

    def __init__(
        self,
        tokenizer: dict | nn.Module,
        discriminator: dict | nn.Module,
        adversarial_weight: float = 0.8,
        adaptive: bool = True,
        schedule: dict | None = None,
        lecam_weight: float = 0.0,
        lecam_decay: float = 0.99,
        r1_weight: float = 0.0,
        r1_interval: int = 16,
        mse_weight: float = 0.0,
        **settings,
    ) -> None:
        super().__init__(tokenizer, mse_weight=mse_weight, **settings)
        if min(adversarial_weight, lecam_weight, r1_weight) < 0 or r1_interval < 1:
            raise ValueError(
                'adversarial_weight, lecam_weight and r1_weight must not be negative and r1_interval at '
                f'least 1; got {adversarial_weight}, {lecam_weight}, {r1_weight} and {r1_interval}'
            )
        channels = self.tokenizer.in_channels
        if isinstance(discriminator, dict):
            discriminator = dict({'in_channels': channels}, **discriminator)
        self.discriminator = build_component(discriminator)
        if getattr(self.discriminator, 'in_channels', channels) != channels:
            raise ValueError(
                f'the tokenizer makes images of {channels} channels, the discriminator takes '
                f'{self.discriminator.in_channels}: remove in_channels from the discriminator'
            )
        self.adversarial_weight, self.adaptive = adversarial_weight, adaptive
        self.schedule = AdversarialSchedule(**(schedule or {}))
        self.lecam_weight = lecam_weight
        self.lecam = LeCAM(lecam_decay) if lecam_weight else None
        self.r1_weight, self.r1_interval = r1_weight, r1_interval
        self.register_buffer('adversarial_scale', torch.ones(()))

    @torch.compiler.disable(recursive=False)  # its numbers are those of another step
    def loss(self, images: Tensor) -> dict[str, Tensor]:
        """Losses of images (B, C, H, W) in [0, 1].

        Those of the discriminator have names ``discriminator_…``. In eval mode they are those of
        :class:`TokenizerPretrain`.
        """
        iteration = int(self.iteration)
        reconstructions, quantization = self._autoencode(images)
        losses = self._reconstruction_losses(reconstructions, images)
        if self.training:
            reconstruction_loss = torch.stack(
                [value for name, value in losses.items() if name.startswith('loss')]
            ).sum()
            losses.update(self._generator_losses(reconstructions, reconstruction_loss, iteration))
            losses.update(self._discriminator_losses(reconstructions.detach(), images, iteration))
        return {**losses, **quantization}

    def parse_losses(self, losses: dict[str, Tensor]) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """The loss of each optimizer, by the component that it trains, and the values for the log.

        The discriminator has no loss while it does not learn. The logged ``loss`` is the
        tokenizer's.
        """
        judged = {name: value for name, value in losses.items() if name.startswith(_DISCRIMINATOR)}
        loss, logged = super().parse_losses({name: value for name, value in losses.items() if name not in judged})
        totals = dict(tokenizer=loss)
        if judged:
            totals['discriminator'], judged = super().parse_losses(judged)
            logged.update({name: value for name, value in judged.items() if name != 'loss'})
        return totals, logged

    @torch.compiler.disable(recursive=False)  # its numbers are those of another step
    def _generator_losses(
        self, reconstructions: Tensor, reconstruction_loss: Tensor, iteration: int
    ) -> dict[str, Tensor]:
        factor = self.adversarial_weight * self.schedule.factor(iteration)
        if not factor:
            return {}
        loss = hinge_generator_loss(frozen_logits(self.discriminator, reconstructions).float())
        weight = factor * self.adversarial_scale
        if self.adaptive:
            weight = weight * adaptive_weight(reconstruction_loss, loss, self.tokenizer.decoder.conv_out.weight)
        return dict(loss_generator=weight * loss, adversarial_weight=weight)

    @torch.compiler.disable(recursive=False)  # its numbers are those of another step
    def _discriminator_losses(self, reconstructions: Tensor, images: Tensor, iteration: int) -> dict[str, Tensor]:
        if not self.schedule.learns(iteration):
            if not dist.is_distributed():
                return {}
            # DistributedDataParallel waits for a gradient of every parameter
            sums = torch.stack([parameter.sum() for parameter in self.discriminator.parameters()])
            return dict(loss_waiting=0.0 * sums.sum())
        real, fake = (self.discriminator(x).float() for x in (images, reconstructions))
        losses = dict(
            discriminator_loss_hinge=hinge_discriminator_loss(real, fake),
            logits_real=real.detach().mean(),
            logits_fake=fake.detach().mean(),
            judged_right=((real.detach() > 0).float().mean() + (fake.detach() < 0).float().mean()) / 2,
        )
        if self.lecam is not None:
            losses['discriminator_loss_lecam'] = self.lecam_weight * self.lecam(real, fake)
        if self.r1_weight and iteration % self.r1_interval == 0:
            losses['discriminator_loss_r1'] = self.r1_weight / 2 * self.r1_interval * self._r1(images)
        return losses

    def _r1(self, images: Tensor) -> Tensor:
        # squares of small gradients need float32
        with torch.autocast(images.device.type, enabled=False):
            images = images.detach().float().requires_grad_()
            return r1_penalty(images, self.discriminator(images))
