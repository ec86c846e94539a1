# Copyright (c) addp_mm contributors. Apache-2.0.
"""A backbone that sees an image as the ids of its tokens."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from addp_mm.imagenet import IMAGENET_MEAN, IMAGENET_STD
from addp_mm.models.backbones.options import OUT_TYPES, arch_settings, ascending_indices, grid_of
from addp_mm.models.backbones.predictor_encoder import PredictorEncoder
from addp_mm.models.layers import OptionError
from addp_mm.models.layers.component import Component
from addp_mm.registry import MODELS


@MODELS.register_module()
class TokenEncoder(Component):
    """Frozen tokenizer, and the encoder of a masked token predictor on the ids of all tokens.

    MAGE (arXiv 2211.09117) fine-tunes its encoder in this way. The encoder never sees pixels: what
    the tokenizer loses is lost, and no gradient reaches the tokenizer.

    Args:
        tokenizer: Tokenizer with ``encode``, ``stride`` and ``codebook_size``, such as
            ``addp_mm.VQTokenizer``: a config with its own ``init_cfg``, or a module. It is frozen,
            stays in eval mode and runs in float32.
        arch: Name or sizes of the encoder, see :class:`ADDPViT`. Defaults to 'base'.
        img_size: Pixels of a side, or (height, width), for which position embeddings are stored.
            They are resized for images of other sizes. Defaults to 256.
        vocab_size: Number of ids of the predictor. Defaults to 2025, as published.
        fake_class_id: The predictor's id at position 0. Defaults to 1100, as published.
        out_indices: Blocks whose outputs are returned, ascending; negative numbers count from the
            end. Blocks after the last of them are not built. Defaults to -1.
        out_type: 'featmap', (B, C, h, w); 'avg_featmap', (B, C), the mean over the map;
            'cls_token', (B, C), the output of the fake class; 'raw', (B, 1 + h * w, C). Defaults to
            'featmap'.
        final_norm: Whether a LayerNorm follows the last block; with ``out_type='avg_featmap'`` it
            follows the mean. Defaults to True.
        pixel_mean: Mean that the data preprocessor subtracted, as for images in [0, 1]. The
            tokenizer gets images in [0, 1] again. Defaults to ImageNet's.
        pixel_std: Standard deviation by which the data preprocessor divided. Defaults to
            ImageNet's.
        drop_rate: Dropout after the embedding, in attention and in the MLPs. Defaults to 0.
        drop_path_rate: Stochastic depth of the last block, in [0, 1). Defaults to 0.
        frozen_stages: 0 freezes the embedding, n also the first n blocks, the number of blocks
            everything. Defaults to -1: only the tokenizer is frozen.
        with_cp: Whether to recompute activations in the backward pass to save memory. Defaults to
            False.
        init_cfg: How mmengine initialises the encoder; the tokenizer has its own. Defaults to None.

    Raises:
        OptionError: An option is out of its range or contradicts another one.
        ImageSizeError: The tokenizer cannot process an image of this size.

    Example:
        >>> tokenizer = dict(type='addp_mm.VQTokenizer', base_channels=32, codebook_size=64)
        >>> backbone = TokenEncoder(tokenizer, 'nano', img_size=64, vocab_size=66, fake_class_id=64)
        >>> [tuple(x.shape) for x in backbone(torch.rand(1, 3, 96, 64))]
        [(1, 128, 6, 4)]
    """

    component = 'backbone'

    def __init__(
        self,
        tokenizer: dict | nn.Module,
        arch: str | Mapping = 'base',
        img_size: int | tuple[int, int] = 256,
        vocab_size: int = 2025,
        fake_class_id: int = 1100,
        out_indices: int | Sequence[int] = -1,
        out_type: str = 'featmap',
        final_norm: bool = True,
        pixel_mean: Sequence[float] = IMAGENET_MEAN,
        pixel_std: Sequence[float] = IMAGENET_STD,
        drop_rate: float = 0.0,
        drop_path_rate: float = 0.0,
        frozen_stages: int = -1,
        with_cp: bool = False,
        init_cfg: dict | None = None,
    ) -> None:
        super().__init__()
        settings = arch_settings(arch)
        self.embed_dims: int = settings['embed_dims']
        self.num_layers: int = settings['num_layers']
        self.out_indices = ascending_indices(out_indices, self.num_layers, 'out_indices')
        self.out_type = out_type
        self.drop_path_rate = drop_path_rate
        self.frozen_stages = frozen_stages
        self.with_cp = with_cp
        built: Any = tokenizer if isinstance(tokenizer, nn.Module) else MODELS.build(tokenizer)
        self.tokenizer: Any = built
        self._check(vocab_size, fake_class_id, pixel_mean, pixel_std)
        self.encoder = PredictorEncoder(
            arch,
            grid_of(img_size, built.stride),
            vocab_size,
            fake_class_id,
            self.out_indices[-1] + 1,
            final_norm,
            drop_rate,
            drop_path_rate,
            with_cp,
            init_cfg,
        )
        for name, values in (('pixel_mean', pixel_mean), ('pixel_std', pixel_std)):
            self.register_buffer(name, torch.tensor(values).view(-1, 1, 1), persistent=False)
        for part in self._frozen_parts():
            part.requires_grad_(False)

    @property
    def in_channels(self) -> int:
        """Channels of the images."""
        return self.tokenizer.in_channels

    @property
    def out_channels(self) -> tuple[int, ...]:
        """Channels of each output."""
        return (self.embed_dims,) * len(self.out_indices)

    @property
    def out_strides(self) -> tuple[int, ...]:
        """Stride in pixels of each map."""
        return (self.tokenizer.stride,) * len(self.out_indices)

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        """Extract features.

        Args:
            x: (B, in_channels, H, W), normalised with ``pixel_mean`` and ``pixel_std``.

        Returns:
            One tensor for each of ``out_indices``; see ``out_type`` for their shapes.
        """
        ids, hw = self.tokenize(x)
        states = self.encoder(ids, hw)
        return tuple(self._format(states[i], hw, is_last=i == self.num_layers - 1) for i in self.out_indices)

    @torch.no_grad()
    def tokenize(self, x: Tensor) -> tuple[Tensor, tuple[int, int]]:
        """Ids of normalised images, in float32.

        Args:
            x: (B, in_channels, H, W).

        Returns:
            Ids (B, h * w), int64, and (h, w).

        Raises:
            ImageSizeError: The tokenizer cannot process an image of this size.
        """
        with torch.autocast(x.device.type, enabled=False):
            ids, latents = self.tokenizer.encode((x.float() * self.pixel_std + self.pixel_mean).clamp(0, 1))
        return ids, (latents.shape[-2], latents.shape[-1])

    def check_image_size(self, height: int, width: int) -> None:
        """Check that images of this size, in pixels, can be processed.

        Raises:
            ImageSizeError: A side is not a multiple of the tokenizer's stride.
        """
        self.tokenizer.check_image_size(height, width)

    def get_layer_depth(self, param_name: str, prefix: str = '') -> tuple[int, int]:
        """Depth of a parameter for layer-wise learning rate decay; mmpretrain calls this.

        Args:
            param_name: Name of the parameter in the whole model.
            prefix: Name of the backbone in the whole model, with a dot at its end. Defaults to ''.

        Returns:
            The depth, and the number of depths. Tokenizer and embedding have depth 0, block i has
            i + 1, the final norm and the modules after the backbone ``num_layers`` + 1.
        """
        last = self.num_layers + 1
        name = param_name.removeprefix(prefix).split('.')
        if not param_name.startswith(prefix) or name[:2] == ['encoder', 'norm']:
            return last, last + 1
        return (int(name[2]) + 1 if name[:2] == ['encoder', 'blocks'] else 0), last + 1

    def _format(self, x: Tensor, hw: tuple[int, int], is_last: bool) -> Tensor:
        norm = self.encoder.norm if is_last else nn.Identity()
        if self.out_type == 'avg_featmap':
            return norm(x[:, 1:].mean(dim=1))
        x = norm(x)
        if self.out_type == 'raw':
            return x
        if self.out_type == 'cls_token':
            return x[:, 0]
        return x[:, 1:].transpose(1, 2).unflatten(2, hw)

    def _frozen_parts(self) -> list[nn.Module | nn.Parameter]:
        """The tokenizer, and what ``frozen_stages`` freezes."""
        encoder, parts = self.encoder, [self.tokenizer]
        if self.frozen_stages >= 0:
            parts += [encoder.word_embed, encoder.pos_embed, encoder.embed_norm, encoder.embed_drop]
            parts += list(encoder.blocks[: self.frozen_stages])
        return parts + ([encoder.norm] if self.frozen_stages == self.num_layers else [])

    def _check(
        self, vocab_size: int, fake_class_id: int, pixel_mean: Sequence[float], pixel_std: Sequence[float]
    ) -> None:
        codes, channels = self.tokenizer.codebook_size, self.tokenizer.in_channels
        if self.out_type not in OUT_TYPES:
            raise OptionError(f'out_type must be one of {OUT_TYPES}, got {self.out_type!r}')
        if not codes <= fake_class_id < vocab_size:
            raise OptionError(
                f'fake_class_id={fake_class_id} must follow the {codes} codes of the tokenizer and be less than '
                f'vocab_size={vocab_size}: take both from the token predictor of this tokenizer'
            )
        if not 0 <= self.drop_path_rate < 1:
            raise OptionError(f'drop_path_rate must be in [0, 1), got {self.drop_path_rate}')
        if not -1 <= self.frozen_stages <= self.num_layers:
            raise OptionError(f'frozen_stages must be in [-1, {self.num_layers}], got {self.frozen_stages}')
        if len(pixel_mean) != channels or len(pixel_std) != channels:
            raise OptionError(
                f'pixel_mean and pixel_std must have one number for each of {channels} channels of the tokenizer, got '
                f'{tuple(pixel_mean)} and {tuple(pixel_std)}'
            )
