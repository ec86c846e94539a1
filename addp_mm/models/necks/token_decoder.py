# Copyright (c) addp_mm contributors. Apache-2.0.
"""The token decoder: features and visible tokens to a state for each token."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from addp_mm.diffusion.token_space import TokenSpace
from addp_mm.models.layers import Block, init_transformer_weights
from addp_mm.models.layers.component import Component
from addp_mm.models.layers.lora import add_lora, number_of_block
from addp_mm.models.layers.lora_weights import check_adapters
from addp_mm.models.layers.positions import visible_positions
from addp_mm.registry import MODELS


@MODELS.register_module()
class TokenDecoder(Component):
    """Transformer over image features and embeddings of visible tokens (arXiv 2306.05423).

    The sequence is the class position, the L image positions and then the word embeddings of the
    visible tokens. The class position and all masked positions have a learned mask token, visible
    positions the projected features. Masked positions and appended tokens have position embeddings
    of their own.

    If an image has a class, its word embedding replaces the mask token at the class position. The
    published models are unconditional.

    Args:
        num_tokens: Number of image tokens L. Defaults to 256.
        in_dims: Width of the features. Defaults to 768.
        embed_dims: Width of the decoder and of its word embeddings. Defaults to None: ``in_dims``.
        num_layers: Number of blocks. Defaults to 8.
        num_heads: Attention heads. Defaults to 16.
        mlp_ratio: Width of the MLPs over ``embed_dims``. Defaults to 4.
        drop_rate: Dropout in attention and MLPs. Defaults to 0.1.
        token_space: The map of token ids, a :class:`~addp_mm.diffusion.token_space.TokenSpace` or
            its arguments. Defaults to None: the published one.
        lora: LoRA adapters in the blocks, as those of :class:`~addp_mm.models.backbones.ADDPViT`.
            Everything else is frozen. Defaults to None.
        init_cfg: How mmengine initialises the weights. Defaults to None.

    Raises:
        OptionError: An option of ``lora`` is wrong.

    Example:
        >>> space = dict(codebook_size=16, num_class_slots=1, fake_class_slot=0)
        >>> decoder = TokenDecoder(4, 8, num_layers=1, num_heads=2, token_space=space)
        >>> mask = torch.tensor([[True, False, True, False]])
        >>> decoder(torch.rand(1, 5, 8), torch.zeros(1, 4, dtype=torch.long), mask).shape
        torch.Size([1, 4, 8])
    """

    component = 'neck'

    def __init__(
        self,
        num_tokens: int = 256,
        in_dims: int = 768,
        embed_dims: int | None = None,
        num_layers: int = 8,
        num_heads: int = 16,
        mlp_ratio: float = 4.0,
        drop_rate: float = 0.1,
        token_space: TokenSpace | Mapping | None = None,
        lora: Mapping | None = None,
        init_cfg: dict | None = None,
    ) -> None:
        super().__init__(init_cfg=init_cfg)
        embed_dims = embed_dims or in_dims
        self.num_tokens = num_tokens
        self.token_space = TokenSpace.of(token_space)
        self.embed = nn.Linear(in_dims, embed_dims)
        self.word_embed = nn.Embedding(self.token_space.vocab_size, embed_dims)
        self.mask_token = nn.Parameter(torch.zeros(1, 1, embed_dims))
        self.pos_embed = nn.Parameter(torch.zeros(1, 1 + num_tokens, embed_dims))
        self.mask_pos_embed = nn.Parameter(torch.zeros(1, num_tokens, embed_dims))
        self.token_pos_embed = nn.Parameter(torch.zeros(1, num_tokens, embed_dims))
        self.blocks = nn.ModuleList(
            Block(embed_dims, num_heads, mlp_ratio=mlp_ratio, drop_rate=drop_rate, attn_drop_rate=drop_rate)
            for _ in range(num_layers)
        )
        self.norm = nn.LayerNorm(embed_dims, eps=1e-6)

        init_transformer_weights(self)
        for table in (
            self.word_embed.weight,
            self.mask_token,
            self.pos_embed,
            self.mask_pos_embed,
            self.token_pos_embed,
        ):
            nn.init.trunc_normal_(table, std=0.02)
        self.register_load_state_dict_pre_hook(check_adapters)
        if lora is not None:
            add_lora(self, lora, num_layers, number_of_block)

    @torch.compiler.disable(recursive=False)  # its numbers are those of another step
    def forward(self, features: Tensor, ids: Tensor, mask: Tensor, labels: Tensor | None = None) -> Tensor:
        """States of the image positions.

        Args:
            features: Features of the encoder, class token first, (B, 1 + L, in_dims).
            ids: Ids of the image tokens, (B, L), int64; masked positions are ignored.
            mask: (B, L), bool, True where masked. Rows with the same number of masked positions are
                processed together.
            labels: Classes, (B,), int64; -1: no class. Defaults to None: no class in any row.

        Returns:
            (B, L, embed_dims).

        Raises:
            ValueError: A shape does not fit.
            ClassLabelError: See :meth:`TokenSpace.class_ids`.
        """
        self._check(features, ids, mask, labels)
        mask = mask.bool()
        counts = mask.sum(1)
        distinct, sizes = (found.tolist() for found in counts.unique(return_counts=True))
        if len(distinct) == 1:
            return self._alike(features, ids, mask, labels, distinct[0])
        order = counts.argsort(stable=True)
        parts = [
            self._alike(features[rows], ids[rows], mask[rows], None if labels is None else labels[rows], num_masked)
            for num_masked, rows in zip(distinct, order.split(sizes), strict=True)
        ]
        return torch.cat(parts)[order.argsort()]

    def decode(self, features: Tensor, ids: Tensor, mask: Tensor, labels: Tensor | None = None) -> Tensor:
        """States of the whole sequence.

        Args:
            features: See :meth:`forward`.
            ids: See :meth:`forward`.
            mask: See :meth:`forward`, but all rows have the same number of masked positions.
            labels: See :meth:`forward`. Defaults to None.

        Returns:
            (B, 1 + L + V, embed_dims) for V visible tokens.
        """
        mask = mask.bool()
        positions = visible_positions(mask, self.num_tokens - int(mask[0].sum()))
        return self.norm(self._sequence(features, ids, mask, positions, labels))

    @torch.compiler.disable(recursive=False)  # as forward
    def _alike(self, features: Tensor, ids: Tensor, mask: Tensor, labels: Tensor | None, num_masked: int) -> Tensor:
        """States of the image positions of rows that have the same number of masked ones."""
        num_visible = self.num_tokens - num_masked
        positions = visible_positions(mask, num_visible)
        # torch.compile would compile once more for each of the sizes 0 and 1, which are rare
        states = self._image_states if num_visible > 1 else torch.compiler.disable(self._image_states)
        return states(features, ids, mask, positions, labels)

    def _image_states(
        self, features: Tensor, ids: Tensor, mask: Tensor, positions: Tensor, labels: Tensor | None
    ) -> Tensor:
        x = self._sequence(features, ids, mask, positions, labels)
        return self.norm(x[:, 1 : 1 + self.num_tokens])

    def _sequence(
        self, features: Tensor, ids: Tensor, mask: Tensor, positions: Tensor, labels: Tensor | None
    ) -> Tensor:
        """The whole sequence after the blocks, (B, 1 + L + V, embed_dims)."""
        x = torch.cat([self._image_positions(features, mask, labels), self._visible_tokens(ids, positions)], dim=1)
        for block in self.blocks:
            x = block(x)
        return x

    def _image_positions(self, features: Tensor, mask: Tensor, labels: Tensor | None) -> Tensor:
        """Class position and image positions, (B, 1 + L, embed_dims)."""
        visible = self.embed(features[:, 1:]) + self.pos_embed[:, 1:]
        image = torch.where(mask.unsqueeze(-1), self.mask_token + self.mask_pos_embed, visible)
        class_position = (self._class_words(labels) + self.pos_embed[:, :1]).expand(len(image), -1, -1)
        return torch.cat([class_position, image], dim=1)

    def _class_words(self, labels: Tensor | None) -> Tensor:
        """Word embeddings of the classes, or the mask token, (B or 1, 1, embed_dims)."""
        if labels is None:
            return self.mask_token
        words = self.word_embed(self.token_space.class_ids(labels)[:, None])
        return torch.where((labels < 0)[:, None, None], self.mask_token, words)

    def _visible_tokens(self, ids: Tensor, positions: Tensor) -> Tensor:
        """Embedded visible tokens at their positions (B, V): (B, V, embed_dims)."""
        return self.word_embed(ids.gather(1, positions)) + self.token_pos_embed[0, positions]

    def _check(self, features: Tensor, ids: Tensor, mask: Tensor, labels: Tensor | None) -> None:
        expected = (len(features), self.num_tokens)
        if features.shape[1] != 1 + self.num_tokens or ids.shape != expected or mask.shape != expected:
            raise ValueError(
                f'features must be (B, {1 + self.num_tokens}, C), ids and mask (B, {self.num_tokens}); '
                f'got {tuple(features.shape)}, {tuple(ids.shape)} and {tuple(mask.shape)}'
            )
        if labels is not None and labels.shape != expected[:1]:
            raise ValueError(f'labels must be (B,) with B = {len(features)}, got {tuple(labels.shape)}')
