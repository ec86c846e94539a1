# Copyright (c) addp_mm contributors. Apache-2.0.
"""The ViT that ADDP pre-trains and that classifiers, detectors and segmentors use."""

import logging
import math
from collections.abc import Mapping, Sequence
from typing import cast

import torch
from mmengine.logging import print_log
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from addp_mm.models.backbones.options import (
    arch_settings,
    ascending_indices,
    check_options,
    grid_of,
    layer_scale_start,
    norm_epsilon,
)
from addp_mm.models.layers import Block, PatchEmbed, init_transformer_weights, resize_pos_embed
from addp_mm.models.layers.component import Component
from addp_mm.models.layers.dropout import Dropout
from addp_mm.models.layers.fit_positions import fit_positions
from addp_mm.models.layers.lora import add_lora, merge_lora, number_of_block
from addp_mm.models.layers.lora_weights import check_adapters
from addp_mm.models.layers.window import from_window_order, to_window_order
from addp_mm.registry import MODELS


@MODELS.register_module()
class ADDPViT(Component):
    """Plain vision transformer for pre-training, classification, detection and segmentation.

    The layout is ViT's (arXiv 2010.11929), with ADDP's norm after the embedding (``pre_norm``;
    ``tokenizer_norm`` in the published code) and ViTDet's windows and relative positions (arXiv
    2203.16527). Layer scale (DeiT III, arXiv 2204.07118), tables of relative positions (BEiT, arXiv
    2106.08254) and register tokens (arXiv 2309.16588) serve the weights of other methods, which
    ``addp_mm.layouts`` converts.

    Options of mmpretrain's VisionTransformer are accepted under its names too.

    Args:
        arch: 'nano', 'tiny', 'small', 'base', 'large', 'huge', or mmpretrain's 'b', 'l', 'h',
            'deit-t', 'deit-s', 'deit-b'; or a dict of ``embed_dims``, ``num_layers``,
            ``num_heads`` and optionally ``mlp_ratio`` (4 by default) or ``feedforward_channels``.
            Defaults to 'base'.
        img_size: Pixels of a side, or (height, width), for which position embeddings are stored.
            They are resized for images of other sizes. Defaults to 256.
        patch_size: Side of a patch in pixels. Defaults to 16.
        in_channels: Channels of the images. Defaults to 3.
        out_indices: Blocks whose outputs are returned, ascending; negative numbers count from the
            end. Blocks after the last of them are not built. Defaults to -1.
        out_type: Output of each block. 'cls_token': (B, C). 'avg_featmap': (B, C), the mean of the
            patch tokens. 'featmap': (B, C, h, w). 'raw': (B, 1 + R + h * w, C), class token and R
            register tokens first. Defaults to 'cls_token'.
        with_cls_token: Whether there is a class token. Windows need False. Defaults to True.
        pre_norm: Whether a LayerNorm follows the embedding, as in pre-training. Published
            fine-tuning drops it. Defaults to False.
        final_norm: Whether a LayerNorm follows the last block; with ``out_type='avg_featmap'`` it
            follows the mean. It is not built if the last block is not among ``out_indices``.
            Defaults to True.
        window_size: Side of the attention windows in tokens; 0 for global attention. Defaults to 0.
        global_blocks: With windows: the blocks with global attention. Defaults to ().
        use_rel_pos: Whether every block has decomposed relative positions. Defaults to False.
        use_rel_pos_table: Whether every block has BEiT's relative positions: one number for each
            head and offset, and three for the class token. Defaults to False.
        use_abs_pos: Whether learned position embeddings are added to the tokens; BEiT has none.
            Defaults to True.
        pos_antialias: Whether position embeddings are resized with timm's antialiased filter
            instead of the one in the code of MAE and ADDP. Defaults to False.
        num_register_tokens: Number R of tokens without a position between class token and patches.
            Defaults to 0.
        layer_scale_init: Initial value of a learned factor for each channel of both branches of a
            block. Defaults to None: no factors.
        drop_rate: Dropout after embedding, projections and in the MLPs. Defaults to 0.
        attn_drop_rate: Dropout of the attention weights. Defaults to 0.
        drop_path_rate: Stochastic depth of the last block, in [0, 1); it grows linearly from 0 at
            the first block. Defaults to 0.
        qkv_bias: Whether query, key and value have a bias. Defaults to True.
        norm_eps: Added to the variance in the norms. Defaults to None: 1e-6.
        pad_to_patch: Whether images whose sides are not multiples of the patch are padded with
            zeros on the right and at the bottom instead of refused. Defaults to False.
        with_cp: Whether to recompute activations in the backward pass to save memory. Defaults to
            False.
        frozen_stages: 0 freezes the embedding, n also the first n blocks, the number of blocks
            everything. Frozen components have no gradient and stay in eval mode. Defaults to -1:
            nothing is frozen.
        layer_scale_init_value: mmpretrain's name of ``layer_scale_init``, where 0 means no factors.
            Defaults to None.
        norm_cfg: mmpretrain's form of ``norm_eps``: ``dict(type='LN', eps=1e-6)``. Defaults to
            None.
        interpolate_mode: mmpretrain's option for resizing position embeddings; only 'bicubic'.
            Defaults to 'bicubic'.
        lora: LoRA adapters, which need the package peft: a dict of ``rank``, ``alpha``,
            ``dropout``, ``layers``, ``targets`` and ``trainable``; see
            :class:`~addp_mm.models.layers.lora.LoRAOptions`. Everything else is frozen. Defaults to
            None.
        init_cfg: How mmengine initialises the weights. Defaults to None.

    Attributes:
        out_channels: Channels of each returned output.
        out_strides: Stride of each returned map, in pixels.

    Raises:
        OptionError: An option is out of its range or contradicts another one.
        ImageSizeError: An image does not fit the patch.

    Example:
        >>> backbone = ADDPViT('nano', img_size=64, patch_size=8, out_type='featmap')
        >>> [tuple(x.shape) for x in backbone(torch.rand(1, 3, 96, 64))]
        [(1, 128, 12, 8)]
    """

    component = 'backbone'
    required_weights = ('patch_embed.', 'blocks.')

    # fit_positions reads it: in this layout, the class token has a position embedding
    class_token_has_position = True

    pos_embed: nn.Parameter | None

    def __init__(
        self,
        arch: str | Mapping = 'base',
        img_size: int | tuple[int, int] = 256,
        patch_size: int = 16,
        in_channels: int = 3,
        out_indices: int | Sequence[int] = -1,
        out_type: str = 'cls_token',
        with_cls_token: bool = True,
        pre_norm: bool = False,
        final_norm: bool = True,
        window_size: int = 0,
        global_blocks: Sequence[int] = (),
        use_rel_pos: bool = False,
        use_rel_pos_table: bool = False,
        use_abs_pos: bool = True,
        pos_antialias: bool = False,
        num_register_tokens: int = 0,
        layer_scale_init: float | None = None,
        drop_rate: float = 0.0,
        attn_drop_rate: float = 0.0,
        drop_path_rate: float = 0.0,
        qkv_bias: bool = True,
        norm_eps: float | None = None,
        pad_to_patch: bool = False,
        with_cp: bool = False,
        frozen_stages: int = -1,
        layer_scale_init_value: float | None = None,
        norm_cfg: Mapping | None = None,
        interpolate_mode: str = 'bicubic',
        lora: Mapping | None = None,
        init_cfg: dict | None = None,
    ) -> None:
        super().__init__(init_cfg=init_cfg)
        settings = arch_settings(arch)
        self.embed_dims: int = settings['embed_dims']
        self.num_layers: int = settings['num_layers']
        self.patch_size = patch_size
        self.grid_size = grid_of(img_size, patch_size)
        self.out_indices = ascending_indices(out_indices, self.num_layers, 'out_indices')
        self.out_channels = (self.embed_dims,) * len(self.out_indices)
        self.out_strides = (patch_size,) * len(self.out_indices)
        self.out_type = out_type
        self.with_cls_token = with_cls_token
        self.num_register_tokens = num_register_tokens
        self.num_prefix_tokens = int(with_cls_token) + num_register_tokens
        self.pos_antialias = pos_antialias
        self.with_cp = with_cp
        self.frozen_stages = frozen_stages
        global_blocks = ascending_indices(global_blocks, self.num_layers, 'global_blocks')
        check_options(
            self.num_layers,
            out_type,
            with_cls_token,
            num_register_tokens,
            window_size,
            global_blocks,
            use_rel_pos,
            use_rel_pos_table,
            drop_path_rate,
            frozen_stages,
            interpolate_mode,
            lora,
        )
        eps = norm_epsilon(norm_eps, norm_cfg)

        self._build_embedding(in_channels, pad_to_patch, use_abs_pos)
        self.pre_norm = nn.LayerNorm(self.embed_dims, eps=eps) if pre_norm else nn.Identity()
        self.drop_after_pos = Dropout(drop_rate)
        drop_path_rates = torch.linspace(0, drop_path_rate, self.num_layers).tolist()
        self.blocks = nn.ModuleList(
            Block(
                self.embed_dims,
                settings['num_heads'],
                mlp_ratio=settings['mlp_ratio'],
                qkv_bias=qkv_bias,
                drop_rate=drop_rate,
                attn_drop_rate=attn_drop_rate,
                drop_path_rate=drop_path_rates[i],
                norm_eps=eps,
                window_size=0 if i in global_blocks else window_size,
                rel_pos_size=self.grid_size if use_rel_pos else None,
                rel_pos_table_size=self.grid_size if use_rel_pos_table else None,
                with_cls_token=with_cls_token,
                layer_scale_init=layer_scale_start(layer_scale_init, layer_scale_init_value),
            )
            for i in range(self.out_indices[-1] + 1)
        )
        ends_in_norm = final_norm and len(self.blocks) == self.num_layers
        self.final_norm = nn.LayerNorm(self.embed_dims, eps=eps) if ends_in_norm else nn.Identity()

        self._reset_parameters()
        self.register_load_state_dict_pre_hook(check_adapters)
        self.register_load_state_dict_pre_hook(_fit_to_backbone)
        if lora is not None:
            add_lora(self, lora, len(self.blocks), number_of_block)
        for part in self._frozen_parts():
            part.requires_grad_(False)

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        """Extract features.

        Args:
            x: (B, in_channels, H, W), normalised as in pre-training.

        Returns:
            One tensor for each of ``out_indices``; see ``out_type`` for their shapes.
        """
        x, hw = self.embed(x)
        outs, order = [], 0
        for i, block in enumerate(self.blocks):
            wanted = cast(Block, block).window_order(hw)
            x, order = _sorted(x, hw, order, wanted), wanted
            if self.with_cp and self.training and torch.is_grad_enabled() and i >= self.frozen_stages:
                x = checkpoint(block, x, hw, bool(order), use_reentrant=False)
            else:
                x = block(x, hw, bool(order))
            if i in self.out_indices:
                outs.append(self._format(_sorted(x, hw, order, 0), hw, is_last=i == self.num_layers - 1))
        return tuple(outs)

    def check_image_size(self, height: int, width: int) -> None:
        """Check that images of this size, in pixels, can be processed.

        Raises:
            ImageSizeError: A side is not a multiple of the patch and ``pad_to_patch`` is False.
        """
        self.patch_embed.check_image_size(height, width)

    def merge_lora(self) -> None:
        """Add the adapters of ``lora`` to the weights of their layers, and remove them.

        Raises:
            OptionError: There are no adapters, or they were merged before.
        """
        merge_lora(self)

    def embed(self, x: Tensor) -> tuple[Tensor, tuple[int, int]]:
        """Embed images.

        Args:
            x: (B, in_channels, H, W).

        Returns:
            The first block's tokens (B, 1 + R + h * w, C), and (h, w).
        """
        x, hw = self.patch_embed(x)
        if self.with_cls_token:
            x = torch.cat([self.cls_token.expand(len(x), -1, -1).to(x.dtype), x], dim=1)
        if self.pos_embed is not None:
            x = x + resize_pos_embed(self.pos_embed, self.grid_size, hw, int(self.with_cls_token), self.pos_antialias)
        if self.num_register_tokens:
            cls_token, patches = x.split([int(self.with_cls_token), math.prod(hw)], dim=1)
            x = torch.cat([cls_token, self.register_tokens.expand(len(x), -1, -1).to(x.dtype), patches], dim=1)
        # without a class token they lie as the convolution wrote them, and every norm would copy
        return self.drop_after_pos(self.pre_norm(x)).contiguous(), hw

    def _format(self, x: Tensor, hw: tuple[int, int], is_last: bool) -> Tensor:
        norm = self.final_norm if is_last else nn.Identity()
        if self.out_type == 'avg_featmap':
            return norm(x[:, self.num_prefix_tokens :].mean(dim=1))
        x = norm(x)
        if self.out_type == 'raw':
            return x
        if self.out_type == 'cls_token':
            return x[:, 0]
        return x[:, self.num_prefix_tokens :].transpose(1, 2).unflatten(2, hw)

    def get_layer_depth(self, param_name: str, prefix: str = '') -> tuple[int, int]:
        """Depth of a parameter for layer-wise learning rate decay; mmpretrain calls this.

        Args:
            param_name: Name of the parameter in the whole model.
            prefix: Name of the backbone in the whole model, with a dot at its end. Defaults to ''.

        Returns:
            The depth, and the number of depths. The embedding has depth 0, block i has i + 1, the
            final norm and the modules after it ``num_layers`` + 1.
        """
        last = self.num_layers + 1
        if not param_name.startswith(prefix):
            return last, last + 1
        name = param_name[len(prefix) :].split('.')
        if name[0] in ('cls_token', 'register_tokens', 'pos_embed', 'patch_embed', 'pre_norm'):
            return 0, last + 1
        return (int(name[1]) + 1 if name[0] == 'blocks' else last), last + 1

    def _build_embedding(self, in_channels: int, pad_to_patch: bool, use_abs_pos: bool) -> None:
        """Build the patch projection, the extra tokens and the position embeddings."""
        self.patch_embed = PatchEmbed(self.patch_size, in_channels, self.embed_dims, pad_to_patch)
        if self.with_cls_token:
            self.cls_token = nn.Parameter(torch.zeros(1, 1, self.embed_dims))
        if self.num_register_tokens:
            self.register_tokens = nn.Parameter(torch.zeros(1, self.num_register_tokens, self.embed_dims))
        num_positions = int(self.with_cls_token) + math.prod(self.grid_size)
        self.pos_embed = nn.Parameter(torch.zeros(1, num_positions, self.embed_dims)) if use_abs_pos else None

    def _reset_parameters(self) -> None:
        """Initialise as MAE does; the patch projection is initialised as a linear layer."""
        init_transformer_weights(self)
        nn.init.xavier_uniform_(self.patch_embed.projection.weight.data.flatten(1))
        if self.patch_embed.projection.bias is not None:
            nn.init.zeros_(self.patch_embed.projection.bias)
        if self.pos_embed is not None:
            nn.init.trunc_normal_(self.pos_embed, std=0.02)
        if self.with_cls_token:
            nn.init.normal_(self.cls_token, std=0.02)
        if self.num_register_tokens:
            nn.init.normal_(self.register_tokens, std=0.02)

    def _frozen_parts(self) -> list[nn.Module | nn.Parameter]:
        """Modules and parameters that ``frozen_stages`` freezes."""
        if self.frozen_stages < 0:
            return []
        parts: list[nn.Module | nn.Parameter] = [self.patch_embed, self.pre_norm, self.drop_after_pos]
        parts += [self.cls_token] if self.with_cls_token else []
        parts += [self.register_tokens] if self.num_register_tokens else []
        parts += [self.pos_embed] if self.pos_embed is not None else []
        parts += list(self.blocks[: self.frozen_stages])
        return parts + ([self.final_norm] if self.frozen_stages == self.num_layers else [])


def _sorted(x: Tensor, hw: tuple[int, int], order: int, wanted: int) -> Tensor:
    """Tokens in another order: that of windows with this side, or row-major if it is 0."""
    if order == wanted:
        return x
    if order:
        x = from_window_order(x, hw, order)
    return to_window_order(x, hw, wanted) if wanted else x


def _fit_to_backbone(backbone: ADDPViT, state_dict: dict, prefix: str, *_) -> None:
    """Before loading, resize position embeddings and drop extra tokens that the backbone lacks."""
    own = {key[len(prefix) :]: weight for key, weight in state_dict.items() if key.startswith(prefix)}
    for sentence in fit_positions(own, backbone).assumed:
        print_log(f'{prefix}{sentence}', logger='current', level=logging.WARNING)
    state_dict.update({prefix + name: weight for name, weight in own.items()})
    for name, is_built in (
        ('cls_token', backbone.with_cls_token),
        ('register_tokens', bool(backbone.num_register_tokens)),
    ):
        if not is_built:
            state_dict.pop(prefix + name, None)
