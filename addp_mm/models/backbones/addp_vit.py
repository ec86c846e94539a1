# Copyright (c) addp_mm contributors. Apache-2.0.
"""The ViT that ADDP pre-trains and that classifiers, detectors and segmentors use."""

import logging
import math
from collections.abc import Sequence

import torch
from mmengine.logging import print_log
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from addp_mm.models.backbones.options import arch_settings, ascending_indices, grid_of
from addp_mm.models.layers import Block, OptionError, PatchEmbed, init_transformer_weights, resize_pos_embed
from addp_mm.models.layers.component import Component
from addp_mm.models.layers.fit_positions import fit_positions
from addp_mm.registry import MODELS

OUT_TYPES = ('cls_token', 'avg_featmap', 'featmap', 'raw')


@MODELS.register_module()
class ADDPViT(Component):
    """Plain vision transformer: one class from pre-training to detection.

    The layout is ViT's (arXiv 2010.11929), with ADDP's norm after the embedding (``pre_norm``,
    named ``tokenizer_norm`` in the published code) and ViTDet's windows and relative positions
    (arXiv 2203.16527). Layer scale (DeiT III, arXiv 2204.07118), tables of relative positions
    (BEiT, arXiv 2106.08254) and register tokens (arXiv 2309.16588) are there for the weights of
    other methods, which ``addp_mm.layouts`` translates.

    Args:
        arch (str | dict): 'nano', 'tiny', 'small', 'base', 'large', 'huge', or a dict of
            ``embed_dims``, ``num_layers``, ``num_heads`` and, 4 where it is not given, ``mlp_ratio``. Defaults to 'base'.
        img_size (int | tuple[int, int]): Pixels, (height, width), for which positions are stored.
            Images of any other size resize them. Defaults to 256.
        patch_size (int): Side of a patch in pixels. Defaults to 16.
        in_channels (int): Channels of the image. Defaults to 3.
        out_indices (int | Sequence[int]): Blocks whose output is returned, ascending; negative ones
            count from the end. Blocks after the last of them are not built. Defaults to -1.
        out_type (str): What is returned of each block. 'cls_token': (B, C). 'avg_featmap': (B, C),
            the mean of the patch tokens. 'featmap': (B, C, h, w). 'raw': (B, 1 + R + h * w, C),
            class and register tokens first. Defaults to 'cls_token'.
        with_cls_token (bool): Whether there is a class token. Windows need False. Defaults to True.
        pre_norm (bool): LayerNorm after the embedding. Pre-training has it; published fine-tuning
            drops it. Defaults to False.
        final_norm (bool): LayerNorm of the last block's output; with ``out_type='avg_featmap'`` of
            the mean. Not built if the last block is not among ``out_indices``. Defaults to True.
        window_size (int): Side of the attention windows in tokens, 0 for none. Defaults to 0.
        global_blocks (Sequence[int]): With windows: the blocks that attend everywhere. Defaults to
            ().
        use_rel_pos (bool): Decomposed relative positions in every block. Defaults to False.
        use_rel_pos_table (bool): Relative positions in every block as BEiT has them: one number for
            each head and offset, and three for the class token. Defaults to False.
        use_abs_pos (bool): Whether learned positions are added to the tokens; BEiT adds none.
            Defaults to True.
        pos_antialias (bool): Whether positions are resized by timm's cubic, with antialiasing.
            Defaults to False: by that of MAE's and ADDP's code.
        num_register_tokens (int): Tokens without a position between class token and patches.
            Defaults to 0.
        layer_scale_init (float, optional): Start of a learned factor for each channel of both
            branches of a block. Defaults to None: no factors.
        drop_rate (float): Dropout after embedding, projections and in the MLPs. Defaults to 0.
        attn_drop_rate (float): Dropout of the attention weights. Defaults to 0.
        drop_path_rate (float): Stochastic depth of the last block; it grows linearly from 0.
            Defaults to 0.
        qkv_bias (bool): Whether query, key and value have a bias. Defaults to True.
        norm_eps (float): Added to the variance in the norms. Defaults to 1e-6.
        pad_to_patch (bool): Whether images whose sides are no multiples of the patch are filled up
            with zeros, right and bottom, instead of refused. Defaults to False.
        with_cp (bool): Compute activations again in the backward pass instead of keeping them.
            Defaults to False.
        frozen_stages (int): 0 freezes the embedding, n also the first n blocks, the number of
            blocks everything. Frozen parts hold no gradient and stay in eval mode. Defaults to -1:
            nothing.
        init_cfg (dict, optional): How mmengine sets the weights. Defaults to None.

    Raises:
        ValueError: An option is out of its range or contradicts another, or an image does not fit
            the patch.

    Example:
        >>> backbone = ADDPViT('nano', img_size=64, patch_size=8, out_indices=(2, 5), out_type='featmap')
        >>> [tuple(x.shape) for x in backbone(torch.rand(1, 3, 96, 64))]
        [(1, 128, 12, 8), (1, 128, 12, 8)]
    """

    component = 'backbone'
    required_weights = ('patch_embed.', 'blocks.')

    # of weights in this layout, whatever model they are loaded into: see fit_positions
    class_token_has_position = True

    def __init__(
        self,
        arch: str | dict = 'base',
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
        norm_eps: float = 1e-6,
        pad_to_patch: bool = False,
        with_cp: bool = False,
        frozen_stages: int = -1,
        init_cfg: dict | None = None,
    ) -> None:
        super().__init__(init_cfg=init_cfg)
        arch = arch_settings(arch)
        self.embed_dims = arch['embed_dims']
        self.num_layers = arch['num_layers']
        self.patch_size = patch_size
        self.out_indices = ascending_indices(out_indices, self.num_layers, 'out_indices')
        self.out_type = out_type
        self.with_cls_token = with_cls_token
        self.num_register_tokens = num_register_tokens
        self.num_prefix_tokens = int(with_cls_token) + num_register_tokens
        self.pos_antialias = pos_antialias
        self.with_cp = with_cp
        self.frozen_stages = frozen_stages
        global_blocks = ascending_indices(global_blocks, self.num_layers, 'global_blocks')
        self._check_options(window_size, global_blocks, use_rel_pos, use_rel_pos_table)
        self.grid_size = grid_of(img_size, patch_size)

        self.patch_embed = PatchEmbed(patch_size, in_channels, self.embed_dims, pad_to_patch)
        if with_cls_token:
            self.cls_token = nn.Parameter(torch.zeros(1, 1, self.embed_dims))
        if num_register_tokens:
            self.register_tokens = nn.Parameter(torch.zeros(1, num_register_tokens, self.embed_dims))
        num_places = int(with_cls_token) + math.prod(self.grid_size)
        self.pos_embed = nn.Parameter(torch.zeros(1, num_places, self.embed_dims)) if use_abs_pos else None
        self.pre_norm = nn.LayerNorm(self.embed_dims, eps=norm_eps) if pre_norm else nn.Identity()
        self.drop_after_pos = nn.Dropout(drop_rate)
        drop_path_rates = torch.linspace(0, drop_path_rate, self.num_layers).tolist()
        self.blocks = nn.ModuleList(
            Block(
                self.embed_dims,
                arch['num_heads'],
                mlp_ratio=arch['mlp_ratio'],
                qkv_bias=qkv_bias,
                drop_rate=drop_rate,
                attn_drop_rate=attn_drop_rate,
                drop_path_rate=drop_path_rates[i],
                norm_eps=norm_eps,
                window_size=0 if i in global_blocks else window_size,
                rel_pos_size=self.grid_size if use_rel_pos else None,
                rel_pos_table_size=self.grid_size if use_rel_pos_table else None,
                with_cls_token=with_cls_token,
                layer_scale_init=layer_scale_init,
            )
            for i in range(self.out_indices[-1] + 1)
        )
        ends_in_norm = final_norm and len(self.blocks) == self.num_layers
        self.final_norm = nn.LayerNorm(self.embed_dims, eps=norm_eps) if ends_in_norm else nn.Identity()

        self._reset_parameters()
        self._register_load_state_dict_pre_hook(self._fit_positions)
        for part in self._frozen_parts():
            part.requires_grad_(False)

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        """Extract features.

        Args:
            x (Tensor): (B, in_channels, H, W), normalised as in pre-training.

        Returns:
            tuple[Tensor]: One tensor for each of ``out_indices``, shaped as ``out_type`` says.
        """
        x, hw = self.embed(x)
        outs = []
        for i, block in enumerate(self.blocks):
            if self.with_cp and self.training and torch.is_grad_enabled() and i >= self.frozen_stages:
                x = checkpoint(block, x, hw, use_reentrant=False)
            else:
                x = block(x, hw)
            if i in self.out_indices:
                outs.append(self._format(x, hw, is_last=i == self.num_layers - 1))
        return tuple(outs)

    def check_image_size(self, height: int, width: int) -> None:
        """Raise an ImageSizeError where images of this size, in pixels, cannot be taken."""
        self.patch_embed.check_image_size(height, width)

    def embed(self, x: Tensor) -> tuple[Tensor, tuple[int, int]]:
        """Images (B, in_channels, H, W) to the first block's tokens (B, 1 + R + h * w, C), and (h, w)."""
        x, hw = self.patch_embed(x)
        if self.with_cls_token:
            x = torch.cat([self.cls_token.expand(len(x), -1, -1).to(x.dtype), x], dim=1)
        if self.pos_embed is not None:
            x = x + resize_pos_embed(self.pos_embed, self.grid_size, hw, int(self.with_cls_token), self.pos_antialias)
        if self.num_register_tokens:
            cls_token, patches = x.split([int(self.with_cls_token), math.prod(hw)], dim=1)
            x = torch.cat([cls_token, self.register_tokens.expand(len(x), -1, -1).to(x.dtype), patches], dim=1)
        return self.drop_after_pos(self.pre_norm(x)), hw

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

    def train(self, mode: bool = True) -> 'ADDPViT':
        """Set training mode; frozen parts stay in eval mode. Returns the backbone itself."""
        super().train(mode)
        for part in self._frozen_parts():
            if isinstance(part, nn.Module):
                part.eval()
        return self

    def get_layer_depth(self, param_name: str, prefix: str = '') -> tuple[int, int]:
        """Depth of a parameter, for layer-wise learning rate decay, as mmpretrain's constructor asks for it.

        Args:
            param_name (str): Name of the parameter in the whole model.
            prefix (str): Name of the backbone in the whole model, with a dot at its end. Defaults
                to ''.

        Returns:
            tuple[int, int]: Depth (embedding 0, block i is i + 1, final norm and all that follows
            ``num_layers`` + 1), and the number of depths.
        """
        last = self.num_layers + 1
        if not param_name.startswith(prefix):
            return last, last + 1
        name = param_name[len(prefix) :].split('.')
        if name[0] in ('cls_token', 'register_tokens', 'pos_embed', 'patch_embed', 'pre_norm'):
            return 0, last + 1
        return (int(name[1]) + 1 if name[0] == 'blocks' else last), last + 1

    def _frozen_parts(self) -> list:
        """Modules and parameters that ``frozen_stages`` names."""
        if self.frozen_stages < 0:
            return []
        parts = [self.patch_embed, self.pre_norm, self.drop_after_pos]
        parts += [self.cls_token] if self.with_cls_token else []
        parts += [self.register_tokens] if self.num_register_tokens else []
        parts += [self.pos_embed] if self.pos_embed is not None else []
        parts += list(self.blocks[: self.frozen_stages])
        return parts + ([self.final_norm] if self.frozen_stages == self.num_layers else [])

    def _reset_parameters(self) -> None:
        """Random weights as MAE's: Xavier, the patch projection seen as linear; positions N(0, 0.02)."""
        init_transformer_weights(self)
        nn.init.xavier_uniform_(self.patch_embed.projection.weight.data.flatten(1))
        nn.init.zeros_(self.patch_embed.projection.bias)
        if self.pos_embed is not None:
            nn.init.trunc_normal_(self.pos_embed, std=0.02)
        if self.with_cls_token:
            nn.init.normal_(self.cls_token, std=0.02)
        if self.num_register_tokens:
            nn.init.normal_(self.register_tokens, std=0.02)

    def _check_options(
        self, window_size: int, global_blocks: tuple[int, ...], use_rel_pos: bool, use_rel_pos_table: bool
    ) -> None:
        if self.out_type not in OUT_TYPES:
            raise OptionError(f'out_type must be one of {OUT_TYPES}, got {self.out_type!r}')
        if self.out_type == 'cls_token' and not self.with_cls_token:
            raise OptionError("out_type='cls_token' needs with_cls_token=True")
        if self.num_register_tokens < 0:
            raise OptionError(f'num_register_tokens must not be negative, got {self.num_register_tokens}')
        if window_size and self.num_prefix_tokens:
            raise OptionError(
                'class and register tokens belong to no window: set with_cls_token=False and '
                'num_register_tokens=0 along with window_size'
            )
        if use_rel_pos and use_rel_pos_table:
            raise OptionError(
                'relative positions are decomposed (use_rel_pos) or a table (use_rel_pos_table), not both'
            )
        if use_rel_pos_table and self.num_register_tokens:
            raise OptionError('use_rel_pos_table has no entries for register tokens: set num_register_tokens=0')
        if global_blocks and not window_size:
            raise OptionError('global_blocks names blocks without windows, but window_size is 0')
        if not -1 <= self.frozen_stages <= self.num_layers:
            raise OptionError(f'frozen_stages must lie in [-1, {self.num_layers}], got {self.frozen_stages}')

    def _fit_positions(self, state_dict: dict, prefix: str, *_) -> None:
        """Before loading: resize positions made for another size, drop what tokens have that are not here."""
        own = {key[len(prefix) :]: weight for key, weight in state_dict.items() if key.startswith(prefix)}
        for sentence in fit_positions(own, self).assumed:
            print_log(f'{prefix}{sentence}', logger='current', level=logging.WARNING)
        state_dict.update({prefix + name: weight for name, weight in own.items()})
        for name, here in (('cls_token', self.with_cls_token), ('register_tokens', self.num_register_tokens)):
            if not here:
                state_dict.pop(prefix + name, None)
