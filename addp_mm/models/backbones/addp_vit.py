# Copyright (c) addp_mm contributors. Apache-2.0.
"""The ViT that ADDP pre-trains and that classifiers, detectors and segmentors use."""
import math
from collections.abc import Sequence

import torch
from mmengine.model import BaseModule
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from addp_mm.models.layers import Block, PatchEmbed, init_transformer_weights, resize_pos_embed, resize_rel_pos
from addp_mm.registry import MODELS

ARCHS: dict[str, dict] = {
    'nano': dict(embed_dims=128, num_layers=6, num_heads=4),
    'tiny': dict(embed_dims=192, num_layers=12, num_heads=3),
    'small': dict(embed_dims=384, num_layers=12, num_heads=6),
    'base': dict(embed_dims=768, num_layers=12, num_heads=12),
    'large': dict(embed_dims=1024, num_layers=24, num_heads=16),
    'huge': dict(embed_dims=1280, num_layers=32, num_heads=16),
}
OUT_TYPES = ('cls_token', 'avg_featmap', 'featmap', 'raw')


@MODELS.register_module()
class ADDPViT(BaseModule):
    """Plain vision transformer: one class from pre-training to detection.

    The layout is ViT's (arXiv 2010.11929), with ADDP's norm after the embedding (``pre_norm``, named
    ``tokenizer_norm`` in the published code) and ViTDet's windows and relative positions (arXiv 2203.16527).

    Args:
        arch (str | dict): 'nano', 'tiny', 'small', 'base', 'large', 'huge', or a dict of ``embed_dims``,
            ``num_layers``, ``num_heads`` and, 4 where it is not given, ``mlp_ratio``. Defaults to 'base'.
        img_size (int | tuple[int, int]): Pixels, (height, width), for which positions are stored. Images of any
            other size resize them. Defaults to 256.
        patch_size (int): Side of a patch in pixels. Defaults to 16.
        in_channels (int): Channels of the image. Defaults to 3.
        out_indices (int | Sequence[int]): Blocks whose output is returned, ascending; negative ones count from the
            end. Blocks after the last of them are not built. Defaults to -1.
        out_type (str): What is returned of each block. 'cls_token': (B, C). 'avg_featmap': (B, C), the mean of the
            patch tokens. 'featmap': (B, C, h, w). 'raw': (B, 1 + h * w, C), class token first.
            Defaults to 'cls_token'.
        with_cls_token (bool): Whether there is a class token. Windows need False. Defaults to True.
        pre_norm (bool): LayerNorm after the embedding. Pre-training has it; published fine-tuning drops it.
            Defaults to False.
        final_norm (bool): LayerNorm of the last block's output; with ``out_type='avg_featmap'`` of the mean. Not
            built if the last block is not among ``out_indices``. Defaults to True.
        window_size (int): Side of the attention windows in tokens, 0 for none. Defaults to 0.
        global_blocks (Sequence[int]): With windows: the blocks that attend everywhere. Defaults to ().
        use_rel_pos (bool): Decomposed relative positions in every block. Defaults to False.
        drop_rate (float): Dropout after embedding, projections and in the MLPs. Defaults to 0.
        attn_drop_rate (float): Dropout of the attention weights. Defaults to 0.
        drop_path_rate (float): Stochastic depth of the last block; it grows linearly from 0. Defaults to 0.
        qkv_bias (bool): Whether query, key and value have a bias. Defaults to True.
        norm_eps (float): Added to the variance in the norms. Defaults to 1e-6.
        pad_to_patch (bool): Whether images whose sides are no multiples of the patch are filled up with zeros, right
            and bottom, instead of refused. Defaults to False.
        with_cp (bool): Compute activations again in the backward pass instead of keeping them. Defaults to False.
        frozen_stages (int): 0 freezes the embedding, n also the first n blocks, the number of blocks everything.
            Frozen parts hold no gradient and stay in eval mode. Defaults to -1: nothing.
        init_cfg (dict, optional): How mmengine sets the weights. Defaults to None.

    Raises:
        ValueError: An option is out of its range or contradicts another, or an image does not fit the patch.

    Example:
        >>> backbone = ADDPViT('nano', img_size=64, patch_size=8, out_indices=(2, 5), out_type='featmap')
        >>> [tuple(x.shape) for x in backbone(torch.rand(1, 3, 96, 64))]
        [(1, 128, 12, 8), (1, 128, 12, 8)]
    """

    def __init__(self,
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
                 drop_rate: float = 0.,
                 attn_drop_rate: float = 0.,
                 drop_path_rate: float = 0.,
                 qkv_bias: bool = True,
                 norm_eps: float = 1e-6,
                 pad_to_patch: bool = False,
                 with_cp: bool = False,
                 frozen_stages: int = -1,
                 init_cfg: dict | None = None) -> None:
        super().__init__(init_cfg=init_cfg)
        arch = _arch_settings(arch)
        self.embed_dims = arch['embed_dims']
        self.num_layers = arch['num_layers']
        self.patch_size = patch_size
        self.out_indices = _ascending_indices(out_indices, self.num_layers, 'out_indices')
        self.out_type = out_type
        self.num_prefix_tokens = int(with_cls_token)
        self.with_cp = with_cp
        self.frozen_stages = frozen_stages
        global_blocks = _ascending_indices(global_blocks, self.num_layers, 'global_blocks')
        self._check_options(window_size, global_blocks)
        self.grid_size = _grid_size(img_size, patch_size)

        self.patch_embed = PatchEmbed(patch_size, in_channels, self.embed_dims, pad_to_patch)
        if with_cls_token:
            self.cls_token = nn.Parameter(torch.zeros(1, 1, self.embed_dims))
        num_places = self.num_prefix_tokens + math.prod(self.grid_size)
        self.pos_embed = nn.Parameter(torch.zeros(1, num_places, self.embed_dims))
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
                rel_pos_size=self.grid_size if use_rel_pos else None) for i in range(self.out_indices[-1] + 1))
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

    def embed(self, x: Tensor) -> tuple[Tensor, tuple[int, int]]:
        """Images (B, in_channels, H, W) to the first block's tokens (B, 1 + h * w, C), and (h, w)."""
        x, hw = self.patch_embed(x)
        if self.num_prefix_tokens:
            x = torch.cat([self.cls_token.expand(len(x), -1, -1).to(x.dtype), x], dim=1)
        x = x + resize_pos_embed(self.pos_embed, self.grid_size, hw, self.num_prefix_tokens)
        return self.drop_after_pos(self.pre_norm(x)), hw

    def _format(self, x: Tensor, hw: tuple[int, int], is_last: bool) -> Tensor:
        norm = self.final_norm if is_last else nn.Identity()
        if self.out_type == 'avg_featmap':
            return norm(x[:, self.num_prefix_tokens:].mean(dim=1))
        x = norm(x)
        if self.out_type == 'raw':
            return x
        if self.out_type == 'cls_token':
            return x[:, 0]
        return x[:, self.num_prefix_tokens:].transpose(1, 2).unflatten(2, hw)

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
            prefix (str): Name of the backbone in the whole model, with a dot at its end. Defaults to ''.

        Returns:
            tuple[int, int]: Depth (embedding 0, block i is i + 1, final norm and all that follows ``num_layers`` + 1),
            and the number of depths.
        """
        last = self.num_layers + 1
        if not param_name.startswith(prefix):
            return last, last + 1
        name = param_name[len(prefix):].split('.')
        if name[0] in ('cls_token', 'pos_embed', 'patch_embed', 'pre_norm'):
            return 0, last + 1
        return (int(name[1]) + 1 if name[0] == 'blocks' else last), last + 1

    def _frozen_parts(self) -> list:
        """Modules and parameters that ``frozen_stages`` names."""
        if self.frozen_stages < 0:
            return []
        parts = [self.patch_embed, self.pos_embed, self.pre_norm, self.drop_after_pos]
        parts += [self.cls_token] if self.num_prefix_tokens else []
        parts += list(self.blocks[:self.frozen_stages])
        return parts + ([self.final_norm] if self.frozen_stages == self.num_layers else [])

    def _reset_parameters(self) -> None:
        """Random weights as MAE's: Xavier, the patch projection seen as linear; positions N(0, 0.02)."""
        init_transformer_weights(self)
        nn.init.xavier_uniform_(self.patch_embed.projection.weight.data.flatten(1))
        nn.init.zeros_(self.patch_embed.projection.bias)
        nn.init.trunc_normal_(self.pos_embed, std=.02)
        if self.num_prefix_tokens:
            nn.init.normal_(self.cls_token, std=.02)

    def _check_options(self, window_size: int, global_blocks: tuple[int, ...]) -> None:
        if self.out_type not in OUT_TYPES:
            raise ValueError(f'out_type must be one of {OUT_TYPES}, got {self.out_type!r}')
        if self.out_type == 'cls_token' and not self.num_prefix_tokens:
            raise ValueError("out_type='cls_token' needs with_cls_token=True")
        if window_size and self.num_prefix_tokens:
            raise ValueError('a class token belongs to no window: set with_cls_token=False along with window_size')
        if global_blocks and not window_size:
            raise ValueError('global_blocks names blocks without windows, but window_size is 0')
        if not -1 <= self.frozen_stages <= self.num_layers:
            raise ValueError(f'frozen_stages must lie in [-1, {self.num_layers}], got {self.frozen_stages}')

    def _fit_positions(self, state_dict: dict, prefix: str, *_) -> None:
        """Before loading: resize positions made for another size, drop the class token's where there is none."""
        key = f'{prefix}pos_embed'
        if key in state_dict:
            state_dict[key] = self._fit_pos_embed(state_dict[key], f'{prefix}cls_token' in state_dict)
        if not self.num_prefix_tokens:
            state_dict.pop(f'{prefix}cls_token', None)
        for name, parameter in self.named_parameters():
            key = prefix + name
            if '.rel_pos_' in name and key in state_dict:
                state_dict[key] = resize_rel_pos(state_dict[key], len(parameter))

    def _fit_pos_embed(self, pos_embed: Tensor, has_cls_token: bool) -> Tensor:
        if has_cls_token and not self.num_prefix_tokens:
            pos_embed = pos_embed[:, 1:]
        if pos_embed.shape[1] == self.pos_embed.shape[1]:
            return pos_embed
        places = pos_embed.shape[1] - self.num_prefix_tokens
        side = math.isqrt(max(places, 0))
        if side == 0 or side * side != places:
            raise ValueError(f'pos_embed of the checkpoint has {places} places, which are no square map, and this '
                             f'backbone has {self.grid_size[0]} x {self.grid_size[1]}: load it into a backbone of its '
                             'own img_size and resize with addp_mm.models.layers.resize_pos_embed')
        return resize_pos_embed(pos_embed, (side, side), self.grid_size, self.num_prefix_tokens)


def _arch_settings(arch: str | dict) -> dict:
    if isinstance(arch, str):
        if arch not in ARCHS:
            raise ValueError(f'arch must be one of {tuple(ARCHS)} or a dict, got {arch!r}')
        arch = ARCHS[arch]
    needed, known = {'embed_dims', 'num_layers', 'num_heads'}, {'embed_dims', 'num_layers', 'num_heads', 'mlp_ratio'}
    if not needed <= set(arch) <= known:
        raise ValueError(f'an arch dict needs {sorted(needed)} and may have mlp_ratio; got {sorted(arch)}')
    return {'mlp_ratio': 4., **arch}


def _ascending_indices(indices: int | Sequence[int], num_layers: int, name: str) -> tuple[int, ...]:
    """Block numbers counted from the start, checked."""
    given = (indices, ) if isinstance(indices, int) else tuple(indices)
    if any(not -num_layers <= i < num_layers for i in given):
        raise ValueError(f'{name} {given} must name blocks of {num_layers}: {-num_layers} to {num_layers - 1}')
    counted = tuple(i % num_layers for i in given)
    if list(counted) != sorted(set(counted)) or (name == 'out_indices' and not counted):
        raise ValueError(f'{name} must ascend without repetition' +
                         (' and name at least one block' if name == 'out_indices' else '') + f', got {given}')
    return counted


def _grid_size(img_size: int | tuple[int, int], patch_size: int) -> tuple[int, int]:
    h, w = (img_size, img_size) if isinstance(img_size, int) else img_size
    if h % patch_size or w % patch_size:
        raise ValueError(f'img_size {h} x {w} must be multiples of patch_size {patch_size}')
    return h // patch_size, w // patch_size
