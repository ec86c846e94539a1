# Copyright (c) addp_mm contributors. Apache-2.0.
"""The token predictor: probabilities of the masked tokens, given the visible ones."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from addp_mm.diffusion.token_space import TokenSpace
from addp_mm.models.heads.token_head import TokenHead
from addp_mm.models.layers import Block, init_transformer_weights
from addp_mm.models.layers.component import Component
from addp_mm.models.layers.dropout import Dropout
from addp_mm.models.layers.positions import masked_rows
from addp_mm.registry import MODELS


@MODELS.register_module()
class MaskedTokenPredictor(Component):
    """Masked transformer on token ids (MAGE, arXiv 2211.09117), without its unused pixel embedding.

    The sequence is the id of the class and then the L image tokens; the mask id replaces masked
    ones. Images without a class, and all images of an unconditional model, have the fake class.
    A ViT encoder processes all of it, or in MAGE's training only the positions that are kept. The
    decoder processes a linear projection of all positions. In it, the encoder's class output
    replaces positions that are masked or were not kept.

    Args:
        num_tokens: Number of image tokens L. Defaults to 256.
        embed_dims: Width of the encoder and of the word embeddings. Defaults to 768.
        num_layers: Number of blocks of the encoder. Defaults to 12.
        num_heads: Attention heads of the encoder. Defaults to 12.
        decoder_embed_dims: Width of the decoder. Defaults to None: ``embed_dims``.
        decoder_num_layers: Number of blocks of the decoder. Defaults to 8.
        decoder_num_heads: Attention heads of the decoder. Defaults to None: ``num_heads``.
        mlp_ratio: Width of the MLPs over the width of the blocks. Defaults to 4.
        drop_rate: Dropout after the embedding, in attention and in the MLPs. Defaults to 0.1.
        token_space: The map of token ids, a :class:`~addp_mm.diffusion.token_space.TokenSpace` or
            its arguments. Defaults to None: the published one.
        train_dropout: For algorithms with a frozen predictor: whether its dropout is active while
            they train, as in the published training, where it made the targets noisy. Defaults to
            False.
        init_cfg: How mmengine initialises the weights. Defaults to None.

    Example:
        >>> space = dict(codebook_size=16, num_class_slots=1, fake_class_slot=0)
        >>> predictor = MaskedTokenPredictor(4, 8, 1, 2, decoder_num_layers=1, token_space=space)
        >>> predictor(torch.zeros(2, 4, dtype=torch.long), torch.ones(2, 4, dtype=torch.bool)).shape
        torch.Size([2, 4, 16])
    """

    component = 'predictor'
    required_weights = ('word_embed.', 'blocks.', 'decoder_blocks.')

    def __init__(
        self,
        num_tokens: int = 256,
        embed_dims: int = 768,
        num_layers: int = 12,
        num_heads: int = 12,
        decoder_embed_dims: int | None = None,
        decoder_num_layers: int = 8,
        decoder_num_heads: int | None = None,
        mlp_ratio: float = 4.0,
        drop_rate: float = 0.1,
        token_space: TokenSpace | Mapping | None = None,
        train_dropout: bool = False,
        init_cfg: dict | None = None,
    ) -> None:
        super().__init__(init_cfg=init_cfg)
        decoder_embed_dims = decoder_embed_dims or embed_dims
        decoder_num_heads = decoder_num_heads or num_heads
        self.num_tokens = num_tokens
        self.token_space = TokenSpace.of(token_space)
        self.train_dropout = train_dropout

        self.word_embed = nn.Embedding(self.token_space.vocab_size, embed_dims)
        self.pos_embed = nn.Parameter(torch.zeros(1, 1 + num_tokens, embed_dims))
        self.embed_norm = nn.LayerNorm(embed_dims, eps=1e-6)
        self.embed_drop = Dropout(drop_rate)
        self.blocks = self._stack(num_layers, embed_dims, num_heads, mlp_ratio, drop_rate)
        self.norm = nn.LayerNorm(embed_dims, eps=1e-6)

        self.decoder_embed = nn.Linear(embed_dims, decoder_embed_dims)
        self.decoder_pos_embed = nn.Parameter(torch.zeros(1, 1 + num_tokens, decoder_embed_dims))
        self.decoder_blocks = self._stack(
            decoder_num_layers, decoder_embed_dims, decoder_num_heads, mlp_ratio, drop_rate
        )
        self.decoder_norm = nn.LayerNorm(decoder_embed_dims, eps=1e-6)
        self.head = TokenHead(decoder_embed_dims, embed_dims, self.token_space)

        init_transformer_weights(self)
        for table in (self.word_embed.weight, self.pos_embed, self.decoder_pos_embed):
            nn.init.trunc_normal_(table, std=0.02)

    @staticmethod
    def _stack(depth: int, embed_dims: int, num_heads: int, mlp_ratio: float, drop_rate: float) -> nn.ModuleList:
        """Transformer blocks."""
        return nn.ModuleList(
            Block(embed_dims, num_heads, mlp_ratio=mlp_ratio, drop_rate=drop_rate, attn_drop_rate=drop_rate)
            for _ in range(depth)
        )

    def _states(self, ids: Tensor, mask: Tensor, kept: Tensor | None, labels: Tensor | None) -> Tensor:
        """Decoder states of the image positions, (B, L, decoder_embed_dims)."""
        if ids.shape != mask.shape or ids.dim() != 2 or ids.shape[1] != self.num_tokens:
            raise ValueError(
                f'ids and mask must both be (B, {self.num_tokens}), got {tuple(ids.shape)} and {tuple(mask.shape)}'
            )
        if kept is not None and (kept.dim() != 2 or len(kept) != len(ids)):
            raise ValueError(f'kept must be (B, K) positions with B = {len(ids)}, got {tuple(kept.shape)}')
        if labels is not None and labels.shape != ids.shape[:1]:
            raise ValueError(f'labels must be (B,) with B = {len(ids)}, got {tuple(labels.shape)}')
        mask = mask.bool()
        x = self.decoder_embed(self._encode(ids.masked_fill(mask, self.token_space.mask_id), kept, labels))
        class_state, image = x[:, :1], x[:, 1:]
        if kept is not None:
            everywhere = class_state.expand(-1, self.num_tokens, -1)
            image = everywhere.scatter(1, _rows(kept, image), image)
        image = torch.where(mask.unsqueeze(-1), class_state, image)
        x = torch.cat([class_state, image], dim=1) + self.decoder_pos_embed
        for block in self.decoder_blocks:
            x = block(x)
        return self.decoder_norm(x)[:, 1:]

    def _encode(self, words: Tensor, kept: Tensor | None, labels: Tensor | None) -> Tensor:
        """Encoder states of the class and of the kept positions, (B, 1 + K, embed_dims)."""
        if labels is None:
            class_ids = words.new_full((len(words),), self.token_space.fake_class_id)
        else:
            class_ids = self.token_space.class_ids(labels)
        pos_embed: Tensor = self.pos_embed
        if kept is not None:
            words = words.gather(1, kept)
            class_pos, image_pos = pos_embed.expand(len(words), -1, -1).split([1, self.num_tokens], dim=1)
            pos_embed = torch.cat([class_pos, image_pos.gather(1, _rows(kept, image_pos))], dim=1)
        x = self.word_embed(torch.cat([class_ids[:, None], words], dim=1)) + pos_embed
        x = self.embed_drop(self.embed_norm(x))
        for block in self.blocks:
            x = block(x)
        return self.norm(x)

    def logits(
        self,
        ids: Tensor,
        mask: Tensor,
        kept: Tensor | None = None,
        labels: Tensor | None = None,
        codes_only: bool = False,
    ) -> Tensor:
        """Logits at every image position.

        Args:
            ids: Ids of the image tokens, (B, L), int64; masked positions are ignored.
            mask: (B, L), bool, True where masked.
            kept: Positions that the encoder sees in addition to the class, (B, K), int64, each at
                most once in a row. MAGE's training drops half of all positions, all of them
                masked (see :func:`addp_mm.diffusion.random_masks`). Defaults to None: all.
            labels: Classes, (B,), int64; -1: no class. Defaults to None: no class in any row.
            codes_only: Whether only the logits of the codes are computed, the first words of the
                vocabulary. Defaults to False.

        Returns:
            (B, L, vocab_size) or (B, L, codebook_size).

        Raises:
            ValueError: A shape is not (B, num_tokens), or ``kept`` or ``labels`` has another number
                of rows.
            ClassLabelError: See :meth:`TokenSpace.class_ids`.
        """
        return self.head(self._states(ids, mask, kept, labels), self._words(codes_only))

    def masked_logits(
        self,
        ids: Tensor,
        mask: Tensor,
        kept: Tensor | None = None,
        labels: Tensor | None = None,
        rows: Tensor | None = None,
        codes_only: bool = False,
    ) -> Tensor:
        """Logits of the M masked tokens of a batch alone: those of :meth:`logits` at ``mask``.

        The head, whose output is as wide as the vocabulary, runs at these positions only.

        Args:
            ids: See :meth:`logits`.
            mask: See :meth:`logits`.
            kept: See :meth:`logits`. Defaults to None.
            labels: See :meth:`logits`. Defaults to None.
            rows: :func:`~addp_mm.models.layers.positions.masked_rows` of the mask, (M,), int64, if
                the caller has them. Defaults to None.
            codes_only: See :meth:`logits`. Defaults to False.

        Returns:
            (M, vocab_size) or (M, codebook_size), row by row.
        """
        rows = masked_rows(mask) if rows is None else rows
        return self.head(self._states(ids, mask, kept, labels).flatten(0, 1)[rows], self._words(codes_only))

    def forward(self, ids: Tensor, mask: Tensor, labels: Tensor | None = None, rows: Tensor | None = None) -> Tensor:
        """Probabilities over the codes, at all positions or at some.

        Args:
            ids: See :meth:`logits`.
            mask: See :meth:`logits`.
            labels: See :meth:`logits`. Defaults to None.
            rows: Wanted positions in the batch whose first two dimensions are flattened, (R,),
                int64. Defaults to None: all.

        Returns:
            (B, L, codebook_size) or (R, codebook_size), float32.
        """
        states = self._states(ids, mask, None, labels)
        if rows is not None:
            states = states.flatten(0, 1)[rows]
        return self.head(states, self._words(codes_only=True)).float().softmax(dim=-1)

    def _words(self, codes_only: bool) -> Tensor:
        """Word embeddings of the logits."""
        return self.word_embed.weight[: self.token_space.codebook_size if codes_only else None]


def _rows(positions: Tensor, like: Tensor) -> Tensor:
    """Positions (B, K) as an index along dimension 1 of (B, …, C)."""
    return positions.unsqueeze(-1).expand(-1, -1, like.shape[-1])
