# Copyright (c) addp_mm contributors. Apache-2.0.
"""ADDP: pre-training by alternating denoising of tokens and pixels."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import torch
import torch.nn.functional as F
from mmpretrain.models.selfsup.base import BaseSelfSupervisor
from torch import Tensor, nn

from addp_mm.diffusion import NoiseDraw, NoiseSchedule, corrupt_rows, expected_latents, mean_codes, nested_masks
from addp_mm.imagenet import IMAGENET_MEAN, IMAGENET_STD
from addp_mm.models.layers import ImageSizeError
from addp_mm.models.layers.component import Component
from addp_mm.models.layers.errors import OptionError
from addp_mm.models.layers.positions import masked_rows
from addp_mm.models.selfsup.build_component import build_component
from addp_mm.models.selfsup.class_labels import check_drop_rate, drop_labels, read_labels
from addp_mm.models.selfsup.frozen import add_missing_components, freeze, is_loaded
from addp_mm.models.selfsup.stored_ids import StoredIds
from addp_mm.randomness import generator_from_process
from addp_mm.registry import MODELS

# of channels that are not RGB
OTHER_MEAN, OTHER_STD = (0.5,), (0.25,)


@MODELS.register_module()
class ADDP(Component, BaseSelfSupervisor):
    """Alternating Denoising Diffusion Process (arXiv 2306.05423).

    Backbone and token decoder see pixels that were decoded from partly unreliable tokens, and
    predict the reliable tokens. All methods take images (B, C, H, W) in [0, 1], RGB if C is 3; C is
    the number of channels of the tokenizer and the backbone. The model normalises them itself.
    :meth:`loss` also takes stored ids, which need no encoding
    (:class:`~addp_mm.datasets.TokenIds`): training sees pixels only after they were decoded from
    tokens.
    Tokenizer and predictor are frozen: they have no gradient, load strictly and are ignored by
    DistributedDataParallel. :meth:`train` leaves them in eval mode, except for the predictor's
    dropout if it has ``train_dropout=True``.

    ``num_classes`` in the token space of predictor, neck and head makes it class-conditional. It
    then learns from the classes in the data samples (``gt_label``), of which a share is dropped at
    random; predictor and token decoder get the same ones.

    Args:
        tokenizer: Tokenizer with ``encode``, ``decode`` and ``codebook``: a config or a module.
        predictor: Token predictor called with ids, mask and classes: a config or a module.
        backbone: Backbone that returns the class token and all patch tokens (``out_type='raw'``).
        neck: Token decoder.
        head: Token head with a loss.
        schedule: A :class:`~addp_mm.diffusion.NoiseSchedule`, or its arguments; noise levels are
            drawn from it. Defaults to None: the published one.
        latent_size: Height and width of the token map. Defaults to None: the square of
            ``neck.num_tokens`` tokens.
        unreliable_tokens: Whether masked positions are decoded from the codes that the predictor
            expects there. False is an ablation: they are decoded from the mean of all codes, which
            has no information about the image. Defaults to True.
        hard_target: Whether the targets are the image's own tokens, as in MAGE (arXiv 2211.09117;
            an ablation), and not the predictor's probabilities. Defaults to False.
        class_drop_rate: For a model with classes: share of the images that are trained without
            their class. Defaults to 0.1.
        pixel_mean: Subtracted from the channels before the backbone: one number for each, or one
            for all. Defaults to None: the means of ImageNet for RGB, else 0.5.
        pixel_std: Divides the channels afterwards. Defaults to None: the deviations of ImageNet for
            RGB, else 0.25.
        data_preprocessor: Must bring images to [0, 1], three channels to RGB. Defaults to None.
        init_cfg: How mmengine initialises the weights. Defaults to None.

    Raises:
        ValueError: The components do not fit together, or ``class_drop_rate`` is not in [0, 1].
    """

    component = 'model'

    def __init__(
        self,
        tokenizer: dict | nn.Module,
        predictor: dict | nn.Module,
        backbone: dict | nn.Module,
        neck: dict | nn.Module,
        head: dict | nn.Module,
        schedule: NoiseSchedule | Mapping | None = None,
        latent_size: tuple[int, int] | None = None,
        unreliable_tokens: bool = True,
        hard_target: bool = False,
        class_drop_rate: float = 0.1,
        pixel_mean: Sequence[float] | None = None,
        pixel_std: Sequence[float] | None = None,
        data_preprocessor: dict | nn.Module | None = None,
        init_cfg: dict | None = None,
    ) -> None:
        super().__init__(
            backbone=backbone, neck=neck, head=head, data_preprocessor=data_preprocessor, init_cfg=init_cfg
        )
        self.tokenizer = freeze(build_component(tokenizer), 'tokenizer')
        self.predictor = freeze(build_component(predictor), 'predictor')
        self.register_load_state_dict_pre_hook(_add_frozen_components)
        self.schedule = schedule if isinstance(schedule, NoiseSchedule) else NoiseSchedule(**(schedule or {}))
        self.latent_size = self._check_fit(latent_size)
        self._stored_ids = StoredIds(self.neck.num_tokens, self.tokenizer.codebook_size)
        self.unreliable_tokens = unreliable_tokens
        self.hard_target = hard_target
        self.class_drop_rate = check_drop_rate(class_drop_rate)
        self.in_channels = self._check_channels()
        mean = self._per_channel('pixel_mean', pixel_mean, IMAGENET_MEAN if self.in_channels == 3 else OTHER_MEAN)
        std = self._per_channel('pixel_std', pixel_std, IMAGENET_STD if self.in_channels == 3 else OTHER_STD)
        if not (std > 0).all():
            raise ValueError(f'pixel_std must be positive, got {pixel_std}')
        self.register_buffer('pixel_mean', mean, persistent=False)
        self.register_buffer('pixel_std', std, persistent=False)
        # DistributedDataParallel ignores these names: every rank loads its own weights
        self._ddp_params_and_buffers_to_ignore = [
            f'{name}.{key}' for name, part in self.frozen_components.items() for key in part.state_dict(keep_vars=True)
        ]

    @property
    def num_classes(self) -> int:
        """Number of classes; 0: unconditional."""
        return self.head.token_space.num_classes

    @property
    def frozen_components(self) -> dict[str, nn.Module]:
        """Tokenizer and predictor, by name."""
        return dict(tokenizer=self.tokenizer, predictor=self.predictor)

    def unloaded_components(self) -> list[str]:
        """Names of the frozen components into which no weights were loaded."""
        return [name for name, part in self.frozen_components.items() if not is_loaded(part)]

    def train(self, mode: bool = True) -> ADDP:
        """Set the training mode of the trained components; returns the model."""
        super().train(mode)
        self.tokenizer.eval()
        self.predictor.train(mode and self.predictor.train_dropout)
        return self

    def extract_feat(self, inputs: Tensor | list[Tensor]) -> tuple[Tensor, ...]:
        """Backbone features of images (B, C, H, W), which are clamped to [0, 1]."""
        return self.backbone((_images(inputs).clamp(0, 1) - self.pixel_mean) / self.pixel_std)

    def loss(
        self, inputs: Tensor | list[Tensor], data_samples: list | None = None, noise: NoiseDraw | None = None
    ) -> dict[str, Tensor]:
        """Loss of a batch. Without dropout it depends only on images, classes and the noise.

        Args:
            inputs: Images (B, C, H, W) in [0, 1], or a list with them as first entry; or their ids
                (B, L) of any integer type, or a list of B rows of ids. The loss is the same.
            data_samples: Samples with ``gt_label``, which a model with classes needs. Defaults to
                None.
            noise: Level and generator. Defaults to None: drawn from ``schedule`` by torch's global
                CPU generator, which :class:`~addp_mm.engine.hooks.RandomStateHook` seeds.

        Returns:
            ``loss``, and for the log ``mask_ratio``, ``next_mask_ratio`` and the head's values.

        Raises:
            ClassLabelError: A label is missing, or is not a class of the model.
            ValueError: The ids do not fit the predictor.
        """
        ids = self._stored_ids.read(inputs)
        if ids is None:
            ids, latents = self.tokenize(_images(inputs))
        else:
            latents = self.tokenizer.lookup(ids, *self.latent_size)
        mask, mask_next, rows, labels, ratios = self._draw(noise, data_samples, len(ids), ids.device)
        noisy, target = self.add_noise(ids, latents, mask, mask_next, labels, rows)
        states = self.neck(self.extract_feat(noisy)[-1], ids, mask, labels)
        losses = self.head.loss(states, self.neck.word_embed.weight, target, mask, rows)
        return dict(losses, mask_ratio=ratios[0], next_mask_ratio=ratios[1])

    @torch.compiler.disable  # generators and numbers of another step
    def _draw(
        self, noise: NoiseDraw | None, data_samples: list | None, batch_size: int, device: torch.device
    ) -> tuple[Tensor, Tensor, Tensor, Tensor | None, Tensor]:
        """Masks of a level and the next one, rows of the first, classes, mask ratios of both."""
        noise = noise or NoiseDraw.sample(self.schedule, generator_from_process())
        level, generator = noise.level, noise.generator
        mask, mask_next = nested_masks(self.neck.num_tokens, level, batch_size, generator, device)
        labels = read_labels(data_samples, self.head.token_space, device)
        if labels is not None and self.training:
            labels = drop_labels(labels, self.class_drop_rate, generator)
        ratios = torch.tensor([level.ratio, level.next_ratio], device=device)
        return mask, mask_next, masked_rows(mask), labels, ratios

    @torch.no_grad()
    def tokenize(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Tokenize images, in float32.

        Args:
            images: (B, C, H, W), in [0, 1].

        Returns:
            Ids (B, L) and quantised latents (B, D, h, w).

        Raises:
            ImageSizeError: The token map does not have ``latent_size``.
        """
        with torch.autocast(images.device.type, enabled=False):
            ids, latents = self.tokenizer.encode(images.float())
        if tuple(latents.shape[-2:]) != self.latent_size:
            (height, width), (rows, columns) = images.shape[-2:], latents.shape[-2:]
            wanted = [side * height // rows for side in self.latent_size]
            raise ImageSizeError(
                f'images of {height}x{width} px have {rows}x{columns} tokens, and this model was '
                f'built for a map of {self.latent_size[0]}x{self.latent_size[1]} (latent_size): give '
                f'it images of {wanted[0]}x{wanted[1]} px'
            )
        return ids, latents

    @torch.no_grad()
    def decode(self, latents: Tensor) -> Tensor:
        """Decode latents to images.

        Under autocast to bfloat16 the decoder computes in bfloat16. In all other cases it computes
        in float32, also under autocast to float16, whose range some decoders exceed.

        Args:
            latents: (B, D, h, w).

        Returns:
            (B, C, H, W), float32, not clamped.
        """
        device = latents.device.type
        rounded = torch.is_autocast_enabled(device) and torch.get_autocast_dtype(device) == torch.bfloat16
        with torch.autocast(device, torch.bfloat16, enabled=rounded):
            return self.tokenizer.decode(latents.float()).float()

    @torch.no_grad()
    def add_noise(
        self,
        ids: Tensor,
        latents: Tensor,
        mask: Tensor,
        mask_next: Tensor,
        labels: Tensor | None = None,
        rows: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Noisy images of a level, and the targets of their prediction.

        The predictor's head, and what is as wide as the codebook, is computed at the M masked
        positions only.

        Args:
            ids: (B, L).
            latents: (B, D, h, w).
            mask: Positions masked at the level, (B, L), bool.
            mask_next: Positions masked at the next level, (B, L), bool; contains ``mask``.
            labels: Classes (B,), int64; -1: no class. Defaults to None: no class in any row.
            rows: :func:`~addp_mm.models.layers.positions.masked_rows` of ``mask``, (M,), int64, if
                the caller has them. Defaults to None.

        Returns:
            Images (B, C, H, W), not clamped, and target probabilities (M, codebook_size), row by
            row.
        """
        rows = masked_rows(mask) if rows is None else rows
        masks = []
        if self.unreliable_tokens:
            masks.append(mask_next)
        if not self.hard_target:
            masks.append(mask)
        predictions: Sequence[Tensor] = ()
        if masks:  # one call of the predictor for all masks
            classes = None if labels is None else labels.repeat(len(masks))
            wanted = torch.cat([rows + number * ids.numel() for number in range(len(masks))])
            repeated = ids.repeat(len(masks), 1)
            predicted = self.predictor(repeated, torch.cat(masks), classes, wanted)
            predictions = predicted.unflatten(0, (len(masks), len(rows))).unbind()
        codebook_size = self.tokenizer.codebook_size
        target = F.one_hot(ids.flatten()[rows], codebook_size).float() if self.hard_target else predictions[-1]
        # without a prediction, all codes are equally likely
        likely = predictions[0] if self.unreliable_tokens else torch.ones_like(target) / codebook_size
        with torch.autocast(likely.device.type, enabled=False):
            expected = mean_codes(likely, self.tokenizer.codebook.float())
        return self.decode(corrupt_rows(latents, expected.to(latents.dtype), rows)), target

    def predict_tokens(self, images: Tensor, ids: Tensor, mask: Tensor, labels: Tensor | None = None) -> Tensor:
        """Logits over the codes at every position.

        Args:
            images: (B, C, H, W); clamped to [0, 1].
            ids: (B, L), int64; ids at masked positions have no effect.
            mask: (B, L), bool, True where masked.
            labels: Classes (B,), int64; -1: no class. Defaults to None: no class in any row.

        Returns:
            (B, L, codebook_size).
        """
        states = self.neck(self.extract_feat(images)[-1], ids, mask, labels)
        return self.head(states, self.neck.word_embed.weight[: self.head.token_space.codebook_size])

    @torch.no_grad()
    def expected_latents(self, ids: Tensor, mask: Tensor, labels: Tensor | None = None) -> Tensor:
        """Mean code vectors under the predictor, from which generation starts.

        Args:
            ids: (B, L), int64; ids at masked positions have no effect.
            mask: (B, L), bool, True where masked.
            labels: Classes (B,), int64; -1: no class. Defaults to None: no class in any row.

        Returns:
            (B, D, h, w).
        """
        probabilities = self.predictor(ids, mask, labels)
        with torch.autocast(probabilities.device.type, enabled=False):
            return expected_latents(probabilities, self.tokenizer.codebook.float(), *self.latent_size)

    def _check_channels(self) -> int:
        channels = getattr(self.tokenizer, 'in_channels', 3)
        stem = getattr(getattr(self.backbone, 'patch_embed', None), 'projection', None)
        of_backbone = getattr(stem, 'in_channels', channels)
        if of_backbone != channels:
            raise ValueError(
                f'the tokenizer takes images of {channels} channels, the backbone of {of_backbone}: set '
                f'backbone.in_channels={channels}'
            )
        return channels

    def _per_channel(self, name: str, values: Sequence[float] | None, default: Sequence[float]) -> Tensor:
        numbers = torch.tensor([float(value) for value in (default if values is None else values)])
        if len(numbers) not in (1, self.in_channels):
            raise ValueError(
                f'{name} must have one number for each of {self.in_channels} channels, or one for all, '
                f'got {len(numbers)}'
            )
        return numbers.expand(self.in_channels).clone().view(1, -1, 1, 1)

    def _check_fit(self, latent_size: tuple[int, int] | None) -> tuple[int, int]:
        spaces = [self.predictor.token_space, self.neck.token_space, self.head.token_space]
        classes = [space.num_classes for space in spaces]
        if len(set(classes)) > 1:
            raise OptionError(
                f'predictor, neck and head have {classes[0]}, {classes[1]} and {classes[2]} classes: set the same '
                'num_classes in the token_space of all three (0: unconditional). The predictor needs weights that '
                'were trained with these classes'
            )
        if any(space != spaces[0] for space in spaces) or spaces[0].codebook_size != self.tokenizer.codebook_size:
            raise OptionError(
                f'predictor, neck and head must share the token space of a tokenizer with '
                f'{self.tokenizer.codebook_size} codes, got {spaces}'
            )
        num_tokens = self.neck.num_tokens
        if self.predictor.num_tokens != num_tokens:
            raise OptionError(f'the predictor has {self.predictor.num_tokens} tokens, the neck {num_tokens}')
        if getattr(self.backbone, 'out_type', 'raw') != 'raw':
            raise OptionError(f"ADDP needs a backbone with out_type='raw', got {self.backbone.out_type!r}")
        side = math.isqrt(num_tokens)
        height, width = latent_size or (side, side)
        if height * width != num_tokens:
            raise OptionError(
                f'{num_tokens} tokens do not form a map of {(height, width)}: give latent_size=(height, width)'
            )
        return height, width


def _add_frozen_components(model: ADDP, state_dict: dict, prefix: str, *_) -> None:
    add_missing_components(state_dict, prefix, model.frozen_components)


def _images(inputs: Tensor | list[Tensor]) -> Tensor:
    return inputs[0] if isinstance(inputs, (list, tuple)) else inputs
