# Copyright (c) addp_mm contributors. Apache-2.0.
"""VOLO for classification with token labelling, and for dense prediction."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from addp_mm.models.backbones import timm_sizes
from addp_mm.models.backbones.options import OUT_TYPES
from addp_mm.models.backbones.timm_backbone import TimmBackbone
from addp_mm.models.backbones.timm_model import features_of
from addp_mm.models.backbones.volo_archs import build_volo
from addp_mm.models.layers import OptionError, resize_pos_embed
from addp_mm.models.layers.fit_positions import fit_positions
from addp_mm.models.layers.mix_token import Box, MixedTokens, draw_box, exchange_box
from addp_mm.registry import MODELS

_TOKEN_TYPES = ('cls_token', 'raw')
#: A block; the group is its stage.
_BLOCK = re.compile(r'(timm_model\.(?:network\.\d+|post_network))\.\d+\.')


class _PublishedPositions(timm_sizes.VOLO):
    """Resizes positions as the published code does: bicubic without a filter against aliasing."""

    def resize(self, pos_embed: Tensor, size: tuple[int, int]) -> Tensor:
        own = (pos_embed.shape[1], pos_embed.shape[2])
        return resize_pos_embed(pos_embed.flatten(1, 2), own, size, num_prefix_tokens=0).unflatten(1, size)


@MODELS.register_module()
class VOLO(TimmBackbone):
    """Vision outlooker (arXiv 2106.13112) on timm's modules, for images of any size.

    A stage of outlookers of stride 8 is followed by three stages of transformers of stride 16. For
    classification, two blocks of class attention follow; see
    :class:`~addp_mm.models.heads.volo_head.VOLOHead`.

    Args:
        arch: 'd1' to 'd5', or 'nano' for images of 64 px; or a dict of ``layers`` (four numbers of
            blocks), ``embed_dims`` and ``num_heads`` (pairs for outlookers and transformers), and
            optionally ``mlp_ratio`` (a number or a pair, 3 by default), ``stem_channels`` (64) and
            ``patch_size`` (8). Defaults to 'd1'.
        img_size: Pixels of a side, or (height, width), for which positions are stored. They are
            resized for images of other sizes. Defaults to 224.
        out_indices: Stages whose maps are returned, ascending. Layers after the last of them are
            removed. Defaults to None: all four; the last one for tokens and averages.
        out_type: 'featmap': (B, C, h, w) of each stage. 'raw': (B, 1 + h * w, C) after class
            attention and the norm, class token first. 'cls_token': its class token, (B, C).
            'avg_featmap': (B, C), the mean of the other tokens. Defaults to 'featmap'.
        in_channels: Channels of the images. Defaults to 3.
        drop_path_rate: Stochastic depth of the last transformer, in [0, 1). It grows linearly over
            all blocks; as in the published code, outlookers and class attention have none. Defaults
            to 0.
        mix_token: Whether a random box of tokens is exchanged with the flipped batch in training
            (arXiv 2104.10858). The output is then a MixedTokens instead of a tensor, which VOLOHead
            takes. Needs ``out_type='raw'``. Defaults to False.
        final_norm: Whether the norm is applied to the last stage. Defaults to True.
        with_cp: Whether to recompute activations in the backward pass to save memory. Defaults to
            False.
        frozen_stages: 0 freezes the stem, n also the first n stages, 4 everything. Defaults to -1:
            nothing is frozen.
        lora: LoRA adapters in stages 0 to 3; see :class:`~addp_mm.models.layers.lora.LoRAOptions`.
            Everything else is frozen. Defaults to None.
        init_cfg: How mmengine initialises the weights. Defaults to None.

    Raises:
        OptionError: An option is wrong.
        ImageSizeError: An image is smaller than the largest stride.

    Example:
        >>> backbone = VOLO('nano', img_size=64)
        >>> [tuple(x.shape) for x in backbone(torch.rand(1, 3, 96, 64))]
        [(1, 64, 24, 16), (1, 128, 12, 8), (1, 128, 12, 8), (1, 128, 12, 8)]
    """

    required_weights = ('timm_model.patch_embed.', 'timm_model.network.')

    def __init__(
        self,
        arch: str | Mapping = 'd1',
        img_size: int | tuple[int, int] = 224,
        out_indices: int | Sequence[int] | None = None,
        out_type: str = 'featmap',
        in_channels: int = 3,
        drop_path_rate: float = 0.0,
        mix_token: bool = False,
        final_norm: bool = True,
        with_cp: bool = False,
        frozen_stages: int = -1,
        lora: Mapping | None = None,
        init_cfg: dict | None = None,
    ) -> None:
        size = (img_size, img_size) if isinstance(img_size, int) else (img_size[0], img_size[1])
        super().__init__(
            f'VOLO {arch}' if isinstance(arch, str) else 'VOLO',
            out_indices=3 if out_indices is None and out_type != 'featmap' else out_indices,
            out_type=out_type,
            in_channels=in_channels,
            drop_path_rate=drop_path_rate,
            final_norm=final_norm,
            with_cp=with_cp,
            frozen_stages=frozen_stages,
            model_kwargs=dict(arch=arch, img_size=size),
            lora=lora,
            init_cfg=init_cfg,
        )
        if mix_token and out_type != 'raw':
            raise OptionError(f"mix_token=True needs out_type='raw', got {out_type!r}")
        self.mix_token = mix_token
        self._box: Box | None = None
        self._any_size = _PublishedPositions(self.timm_model, [one.stride for one in features_of(self.timm_model)])
        self.timm_model.patch_embed.register_forward_hook(self._exchange_patches)
        self.register_load_state_dict_pre_hook(_fit_to_backbone)

    def forward(self, x: Tensor) -> tuple[Any, ...]:
        """Extract features.

        Args:
            x: (B, in_channels, H, W), normalised as in the model's training.

        Returns:
            One tensor for each of ``out_indices``; see ``out_type`` for their shapes. In training
            with ``mix_token``, one MixedTokens.
        """
        if not (self.mix_token and self.training):
            return super().forward(x)
        height, width = (-(-side // self.out_strides[-1]) for side in x.shape[-2:])
        top, left, bottom, right = self._box = draw_box(height, width)
        try:
            [tokens] = super().forward(x)
        finally:
            self._box = None
        own = exchange_box(tokens[:, 1:].unflatten(1, (height, width)), (top, left, bottom, right)).flatten(1, 2)
        exchanged = (bottom - top) * (right - left) / (height * width)
        return (MixedTokens(torch.cat([tokens[:, :1], own], dim=1), exchanged),)

    def adopt_weights(  # type: ignore[override]  # None: the layouts of addp_mm apply
        self, weights: Mapping[str, Tensor], _pos_grid: tuple[int, int] | None
    ) -> None:
        """Check published weights, which the layouts of addp_mm convert.

        Args:
            weights: The checkpoint's weights.

        Raises:
            ValueError: They have the widths of this backbone, and another number of blocks.
        """
        given = {f'timm_model.{name.removeprefix("timm_model.")}': weight for name, weight in weights.items()}
        first = 'timm_model.patch_embed.proj.bias'
        if first in given and given[first].shape == self.state_dict()[first].shape:
            self.check_weights(given)

    def check_weights(self, weights: Mapping[str, Tensor]) -> None:
        """Check the number of blocks in each stage.

        Args:
            weights: The checkpoint's weights, under the backbone's names.

        Raises:
            ValueError: A stage has another number of blocks.
        """
        lengths = _other_lengths(self, weights)
        if lengths:
            raise ValueError('; '.join(lengths))

    @staticmethod
    def _build_model(_name: str, in_channels: int, drop_path_rate: float | None, model_kwargs: Mapping) -> nn.Module:
        return build_volo(in_channels=in_channels, drop_path_rate=drop_path_rate or 0.0, **model_kwargs)

    def _check_out_type(self) -> None:
        self.num_prefix_tokens = 0  # the class token comes after the last stage
        if self.out_type not in OUT_TYPES:
            raise OptionError(f'out_type must be one of {OUT_TYPES}, got {self.out_type!r}')
        if self.out_type in _TOKEN_TYPES and self.out_indices != (3,):
            raise OptionError(
                f'out_type={self.out_type!r} follows the last stage: leave out out_indices, got {self.out_indices}'
            )

    def _remove_unused_layers(self) -> None:
        if self.out_type not in _TOKEN_TYPES:
            super()._remove_unused_layers()

    def _format(self, out: Tensor, prefix: Tensor | None, is_normed: bool) -> Tensor:
        if self.out_type not in _TOKEN_TYPES:
            return super()._format(out, prefix, is_normed)
        tokens = self.timm_model.forward_cls(out.flatten(2).transpose(1, 2))
        tokens = self.timm_model.norm(tokens) if is_normed else tokens
        return tokens[:, 0] if self.out_type == 'cls_token' else tokens

    def _exchange_patches(self, *hooked) -> Tensor | None:
        """Forward hook of the patch embedding: module, inputs and output (B, C, 2h, 2w)."""
        out: Tensor = hooked[-1]
        if self._box is None:
            return None
        return exchange_box(out.permute(0, 2, 3, 1), self._box, scale=2).permute(0, 3, 1, 2)


def _fit_to_backbone(backbone: VOLO, state_dict: dict, prefix: str, *args) -> None:
    """Before loading, resize positions, and add an error for each stage of another length.

    d2 and d3 have the same widths: blocks would be left out or stay random.
    """
    own = {name[len(prefix) :]: weight for name, weight in state_dict.items() if name.startswith(prefix)}
    fit_positions(own, backbone)
    state_dict.update({prefix + name: weight for name, weight in own.items()})
    error_msgs: list[str] = args[-1]
    error_msgs += [f'{prefix}{sentence}' for sentence in _other_lengths(backbone, own)]


def _other_lengths(backbone: VOLO, weights: Iterable[str]) -> list[str]:
    """A sentence for each stage whose number of blocks is another one in ``weights``."""
    built, saved = _num_blocks(backbone.state_dict()), _num_blocks(weights)
    return [
        f'{stage} has {saved[stage]} blocks in the checkpoint and {number} in {backbone.model_name}: '
        'the checkpoint is made for another arch'
        for stage, number in built.items()
        if saved.get(stage, number) != number
    ]


def _num_blocks(names: Iterable[str]) -> dict[str, int]:
    """Number of blocks by stage."""
    blocks = {match[0]: match[1] for match in map(_BLOCK.match, names) if match}
    return dict(Counter(blocks.values()))
