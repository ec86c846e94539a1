# Copyright (c) addp_mm contributors. Apache-2.0.
"""Token states to logits over the token space."""

from __future__ import annotations

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from addp_mm.diffusion.token_space import TokenSpace
from addp_mm.models.layers import init_transformer_weights
from addp_mm.models.layers.component import Component
from addp_mm.models.layers.positions import masked_rows
from addp_mm.registry import MODELS


@MODELS.register_module()
class TokenHead(Component):
    """Head of masked token modelling; its output layer is the word embedding of another module.

    Linear, GELU, LayerNorm, then the product with the word embeddings plus a bias for each word.
    The embeddings are detached: the head does not train them (ADDP, arXiv 2306.05423, and MAGE,
    arXiv 2211.09117).

    Args:
        in_dims: Width of the token states.
        word_dims: Width of the word embeddings. Defaults to None: ``in_dims``.
        token_space: The map of token ids, a :class:`~addp_mm.diffusion.token_space.TokenSpace` or
            its arguments. Defaults to None: the published one.
        loss: Config of a module called as ``loss(logits, target)``. Defaults to None: the head only
            predicts.
        norm_eps: Added to the variance in the LayerNorm. Defaults to 1e-5.
        init_cfg: How mmengine initialises the weights. Defaults to None.

    Example:
        >>> space = dict(codebook_size=4, num_class_slots=1, fake_class_slot=0)
        >>> head = TokenHead(in_dims=8, token_space=space)
        >>> head(torch.rand(2, 3, 8), torch.rand(6, 8)).shape
        torch.Size([2, 3, 6])
    """

    component = 'head'

    def __init__(
        self,
        in_dims: int,
        word_dims: int | None = None,
        token_space: TokenSpace | Mapping | None = None,
        loss: Mapping | None = None,
        norm_eps: float = 1e-5,
        init_cfg: dict | None = None,
    ) -> None:
        super().__init__(init_cfg=init_cfg)
        word_dims = word_dims or in_dims
        self.token_space = TokenSpace.of(token_space)
        self.fc = nn.Linear(in_dims, word_dims)
        self.norm = nn.LayerNorm(word_dims, eps=norm_eps)
        self.bias = nn.Parameter(torch.zeros(self.token_space.vocab_size))
        self.loss_module = None if loss is None else MODELS.build(loss)
        init_transformer_weights(self)

    def forward(self, states: Tensor, word_embeddings: Tensor) -> Tensor:
        """Logits over the vocabulary, or over its first words.

        Args:
            states: Token states, (..., in_dims).
            word_embeddings: Those of the first V words, (V, word_dims); they get no gradient.

        Returns:
            Logits, (..., V).
        """
        words = self.norm(F.gelu(self.fc(states)))
        return F.linear(words, word_embeddings.detach()) + self.bias[: len(word_embeddings)]

    def loss(
        self, states: Tensor, word_embeddings: Tensor, target: Tensor, mask: Tensor, rows: Tensor | None = None
    ) -> dict[str, Tensor]:
        """Loss of the masked positions.

        Args:
            states: Token states of the image positions, (B, L, in_dims).
            word_embeddings: (vocab_size, word_dims).
            target: Target probabilities over the codes of the M masked positions, row by row,
                (M, codebook_size).
            mask: (B, L), bool, True where masked.
            rows: :func:`~addp_mm.models.layers.positions.masked_rows` of the mask, (M,), int64, if
                the caller has them. Defaults to None.

        Returns:
            ``loss``, a scalar; and for the log ``constant_prediction``, the loss of the best
            constant prediction, if the loss module computes it.

        Raises:
            RuntimeError: The head was built without a loss.
        """
        if self.loss_module is None:
            raise RuntimeError(
                "this TokenHead was built without a loss: pass loss=dict(type='addp_mm.SoftTargetCrossEntropy')"
            )
        rows = masked_rows(mask) if rows is None else rows
        losses = dict(loss=self.loss_module(self(states.flatten(0, 1)[rows], word_embeddings), target))
        if hasattr(self.loss_module, 'constant_prediction'):
            losses['constant_prediction'] = self.loss_module.constant_prediction(target, len(word_embeddings))
        return losses
