# Copyright (c) addp_mm contributors. Apache-2.0.
"""Pre-training of a tokenizer by reconstruction."""

from __future__ import annotations

import torch
from mmengine import dist
from mmengine.model import BaseModel
from mmengine.structures import BaseDataElement
from torch import Tensor, nn

from addp_mm.models.losses.reconstruction_loss import reconstruction_losses
from addp_mm.models.losses.vq_loss import CODE_GRADIENTS, EMACodes, perplexity, vq_losses
from addp_mm.models.selfsup.build_component import build_component
from addp_mm.registry import MODELS

CODEBOOKS = ('loss', 'ema')


@MODELS.register_module()
class TokenizerPretrain(BaseModel):
    """Reconstruction training of a :class:`~addp_mm.models.tokenizers.VQTokenizer`.

    The loss is ``l1 * |x - y| + mse * (x - y)^2 + |sg(z) - e|^2 + commitment * |z - sg(e)|^2`` with
    the straight-through gradient (VQ-VAE, arXiv 1711.00937). Before ``quantize_from`` the latents
    are not quantised, so that they spread before codes are sampled from them. Afterwards, until
    ``restart_until``, codes that were not used since the last restart are sampled again from the
    latents of the current batch, so that the codebook does not collapse. They are drawn by torch's
    global generator, which :class:`~addp_mm.engine.hooks.RandomStateHook` seeds.

    Besides its own checkpoints it loads the weights of a tokenizer alone, as
    ``tools/model_converters/export_weights.py`` writes them.

    Args:
        tokenizer: Config of the tokenizer, or the module.
        l1_weight: Weight of the absolute error. Defaults to 1.0.
        mse_weight: Weight of the squared error. Defaults to 2.0.
        commitment_weight: Weight of the term that pulls latents to their codes. Defaults to 0.25.
        quantize_from: Iteration from which the latents are quantised. In this iteration all codes
            are sampled from latents. Defaults to 0.
        restart_interval: Iterations between two restarts of unused codes; 0: no restarts. Defaults
            to 200.
        restart_until: Iteration from which there is no restart, so that the codebook converges. An
            optimizer with momentum needs :class:`~addp_mm.engine.hooks.CodeRestartHook`. Defaults
            to 0.
        codebook: How codes learn: 'loss', by the gradient of ``|sg(z) - e|^2``; or 'ema', as the
            moving mean of their latents (:class:`~addp_mm.models.losses.vq_loss.EMACodes`), without
            an optimizer. Defaults to 'loss'.
        ema_decay: Decay of the moving mean. Defaults to 0.99.
        code_gradient: How the gradient passes through the codes: 'straight_through' or 'rotation'
            (arXiv 2410.06424). Defaults to 'straight_through'.
        perceptual: Config of a :class:`~addp_mm.models.losses.PerceptualLoss`, or the module.
            Defaults to None: no such loss.
        perceptual_weight: Weight of the perceptual loss. Defaults to 1.0.
        data_preprocessor: Must scale images to [0, 1]. Defaults to None.
        init_cfg: How mmengine initialises the weights. Defaults to None.

    Raises:
        ValueError: If ``codebook`` or ``code_gradient`` is not one of its values.
    """

    def __init__(
        self,
        tokenizer: dict | nn.Module,
        l1_weight: float = 1.0,
        mse_weight: float = 2.0,
        commitment_weight: float = 0.25,
        quantize_from: int = 0,
        restart_interval: int = 200,
        restart_until: int = 0,
        codebook: str = 'loss',
        ema_decay: float = 0.99,
        code_gradient: str = 'straight_through',
        perceptual: dict | nn.Module | None = None,
        perceptual_weight: float = 1.0,
        data_preprocessor: dict | None = None,
        init_cfg: dict | None = None,
    ) -> None:
        super().__init__(data_preprocessor, init_cfg)
        if codebook not in CODEBOOKS or code_gradient not in CODE_GRADIENTS:
            raise ValueError(
                f'codebook must be one of {CODEBOOKS} and code_gradient one of {tuple(CODE_GRADIENTS)}, '
                f'got {codebook!r} and {code_gradient!r}'
            )
        self.tokenizer = build_component(tokenizer)
        self.register_load_state_dict_pre_hook(_accept_tokenizer_alone)
        self.l1_weight, self.mse_weight = l1_weight, mse_weight
        self.commitment_weight = commitment_weight
        self.quantize_from = quantize_from
        self.restart_interval, self.restart_until = restart_interval, restart_until
        self.code_gradient = CODE_GRADIENTS[code_gradient]
        self.perceptual = None if perceptual is None else build_component(perceptual)
        self.perceptual_weight = perceptual_weight
        self.register_buffer('iteration', torch.zeros((), dtype=torch.long))
        self.register_buffer('code_counts', torch.zeros(self.tokenizer.codebook_size, dtype=torch.long))
        self.ema_codes = None
        if codebook == 'ema':
            self.ema_codes = EMACodes(self.tokenizer.codes.weight, ema_decay)
            self.tokenizer.codes.requires_grad_(False)
        # bool (codebook_size): codes restarted in this iteration, until CodeRestartHook has read it
        self.restarted: Tensor | None = None

    def forward(
        self,
        inputs: Tensor | list[Tensor],
        data_samples: list | None = None,  # noqa: ARG002  # mmengine passes it
        mode: str = 'tensor',
    ) -> Tensor | dict | list:
        """Reconstructions ('tensor'), losses ('loss') or one data element per image ('predict').

        Args:
            inputs: Images (B, C, H, W) in [0, 1], or a list with them as first entry.
            data_samples: Not used. Defaults to None.
            mode: 'tensor', 'loss' or 'predict'. Defaults to 'tensor'.
        """
        images = inputs[0] if isinstance(inputs, list) else inputs
        if mode == 'loss':
            return self.loss(images)
        if mode == 'predict':
            return self.predict(images)
        return self.tokenizer(images)

    def reconstruct(self, images: Tensor) -> Tensor:
        """Reconstruct images (B, C, H, W) in [0, 1] from their codes; clamped to [0, 1]."""
        return self.tokenizer(images)

    def predict(self, images: Tensor) -> list[BaseDataElement]:
        """Ids and reconstructions of images (B, C, H, W) in [0, 1], one element per image."""
        ids, latents = self.tokenizer.encode(images)
        reconstructions = self.tokenizer.decode(latents).clamp(0, 1)
        return [
            BaseDataElement(image=image, reconstruction=reconstruction, ids=row)
            for image, reconstruction, row in zip(images, reconstructions, ids, strict=True)
        ]

    def loss(self, images: Tensor) -> dict[str, Tensor]:
        """Losses of images (B, C, H, W) in [0, 1], PSNR, and usage and perplexity of the codes."""
        reconstructions, quantization = self._autoencode(images)
        return {**self._reconstruction_losses(reconstructions, images), **quantization}

    def _autoencode(self, images: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """Reconstructions (B, C, H, W), not clamped, and the losses of codebook and encoder."""
        latents = self.tokenizer.encode_continuous(images).float()
        decoder_input: Tensor = latents
        quantization: dict[str, Tensor] = {}
        if not self.training or self.iteration >= self.quantize_from:
            decoder_input, quantization = self._quantize(latents)
        elif dist.is_distributed() and self.ema_codes is None:
            # DistributedDataParallel waits for a gradient of every parameter, also of the codes
            quantization = dict(loss_codebook=0.0 * self.tokenizer.codes.weight.sum())
        if self.training:
            self.iteration += 1
        return self.tokenizer.decode(decoder_input).float(), quantization

    def _reconstruction_losses(self, reconstructions: Tensor, images: Tensor) -> dict[str, Tensor]:
        losses = reconstruction_losses(reconstructions, images, self.l1_weight, self.mse_weight)
        if self.perceptual is not None:
            losses['loss_perceptual'] = self.perceptual_weight * self.perceptual(reconstructions, images).mean()
        return losses

    def _quantize(self, latents: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """Codes of the latents, with a gradient to them, and the losses of codebook and encoder."""
        if self.training:
            self._restart_codes(latents.detach())
        ids = self.tokenizer.quantize(latents.detach())
        counts = torch.bincount(ids.flatten(), minlength=self.code_counts.numel())
        if self.training:
            dist.all_reduce(counts)
            self.code_counts += counts
        codes = self.tokenizer.lookup(ids, *latents.shape[-2:])
        losses = vq_losses(latents, codes, self.commitment_weight, learn_codes=self.ema_codes is None)
        losses.update(codes_in_use=(self.code_counts > 0).float().mean(), perplexity=perplexity(counts))
        if self.training and self.ema_codes is not None:
            self.ema_codes.update(self.tokenizer.codes.weight.data, ids, latents.detach())
        return self.code_gradient(latents, codes), losses

    @torch.compiler.disable  # it makes numbers of tensors
    @torch.no_grad()
    def _restart_codes(self, latents: Tensor) -> None:
        """Sample unused codes again from the latents of rank 0's batch, when a restart is due."""
        since = int(self.iteration) - self.quantize_from
        first = since == 0 and self.quantize_from > 0
        due = since > 0 and self.restart_interval > 0 and since % self.restart_interval == 0
        if first or (due and self.iteration < self.restart_until):
            unused = self.code_counts == 0
            candidates = latents.permute(0, 2, 3, 1).flatten(0, 2)
            drawn = torch.randint(len(candidates), (int(unused.sum()),), device=candidates.device)
            self.tokenizer.codes.weight[unused] = candidates[drawn].to(self.tokenizer.codes.weight)
            dist.broadcast(self.tokenizer.codes.weight.data)
            if self.ema_codes is not None:
                self.ema_codes.restart(self.tokenizer.codes.weight, unused)
            self.restarted = unused
        if first or due:
            self.code_counts.zero_()


def _accept_tokenizer_alone(model: TokenizerPretrain, state_dict: dict, prefix: str, *_) -> None:
    """Rename the weights of a tokenizer alone to those of this model."""
    for name in model.tokenizer.state_dict():
        if f'{prefix}{name}' in state_dict:
            state_dict[f'{prefix}tokenizer.{name}'] = state_dict.pop(f'{prefix}{name}')
