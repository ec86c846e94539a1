# Copyright (c) addp_mm contributors. Apache-2.0.
"""The encoder of a masked token predictor, on ids that are all visible."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from addp_mm.models.backbones.options import arch_settings
from addp_mm.models.layers import Block, init_transformer_weights, resize_pos_embed
from addp_mm.models.layers.component import Component
from addp_mm.models.layers.dropout import Dropout


class PredictorEncoder(Component):
    """Encoder of :class:`~addp_mm.models.predictors.MaskedTokenPredictor`, for maps of any size.

    Its weights have the predictor's names. ``addp_mm.Pretrained`` takes them from a predictor, from
    a whole ADDP or from a checkpoint of MAGE, and leaves out decoder and head.

    Args:
        arch: Name or sizes of the ViT, see ``ADDPViT``.
        grid_size: (height, width) of the map for which position embeddings are stored.
        vocab_size: Number of ids in the table of word embeddings.
        fake_class_id: Id at position 0 of every sequence.
        num_blocks: Number of blocks to build. Defaults to None: those of ``arch``.
        final_norm: Whether a LayerNorm follows the last block. It is not built if blocks are left
            out. Defaults to True.
        drop_rate: Dropout after the embedding, in attention and in the MLPs. Defaults to 0.
        drop_path_rate: Stochastic depth of the last block of ``arch``; it grows linearly from 0 at
            the first block. Defaults to 0.
        with_cp: Whether to recompute activations in the backward pass. Defaults to False.
        init_cfg: How mmengine initialises the weights. Defaults to None.
    """

    component = 'predictor'
    required_weights = ('word_embed.', 'blocks.')

    def __init__(
        self,
        arch: str | Mapping,
        grid_size: tuple[int, int],
        vocab_size: int,
        fake_class_id: int,
        num_blocks: int | None = None,
        final_norm: bool = True,
        drop_rate: float = 0.0,
        drop_path_rate: float = 0.0,
        with_cp: bool = False,
        init_cfg: dict | None = None,
    ) -> None:
        super().__init__(init_cfg=init_cfg)
        settings = arch_settings(arch)
        embed_dims, num_layers = settings['embed_dims'], settings['num_layers']
        num_blocks = num_layers if num_blocks is None else num_blocks
        self.grid_size = grid_size
        self.fake_class_id = fake_class_id
        self.with_cp = with_cp
        self.word_embed = nn.Embedding(vocab_size, embed_dims)
        self.pos_embed = nn.Parameter(torch.zeros(1, 1 + grid_size[0] * grid_size[1], embed_dims))
        self.embed_norm = nn.LayerNorm(embed_dims, eps=1e-6)
        self.embed_drop = Dropout(drop_rate)
        rates = torch.linspace(0, drop_path_rate, num_layers).tolist()
        self.blocks = nn.ModuleList(
            Block(
                embed_dims,
                settings['num_heads'],
                mlp_ratio=settings['mlp_ratio'],
                drop_rate=drop_rate,
                attn_drop_rate=drop_rate,
                drop_path_rate=rate,
            )
            for rate in rates[:num_blocks]
        )
        ends_in_norm = final_norm and num_blocks == num_layers
        self.norm = nn.LayerNorm(embed_dims, eps=1e-6) if ends_in_norm else nn.Identity()
        init_transformer_weights(self)
        for table in (self.word_embed.weight, self.pos_embed):
            nn.init.trunc_normal_(table, std=0.02)

    def forward(self, ids: Tensor, hw: tuple[int, int]) -> list[Tensor]:
        """Outputs of all blocks, without the final norm.

        Args:
            ids: Ids of the image tokens, (B, h * w), int64, row-major.
            hw: Height h and width w of the map.

        Returns:
            For each block (B, 1 + h * w, C), the fake class first.
        """
        fake_class = ids.new_full((len(ids), 1), self.fake_class_id)
        x = self.word_embed(torch.cat([fake_class, ids], dim=1))
        x = x + resize_pos_embed(self.pos_embed, self.grid_size, hw, num_prefix_tokens=1)
        x = self.embed_drop(self.embed_norm(x))
        outs = []
        for block in self.blocks:
            recompute = self.with_cp and self.training and torch.is_grad_enabled()
            x = checkpoint(block, x, use_reentrant=False) if recompute else block(x)
            outs.append(x)
        return outs
