# Copyright (c) addp_mm contributors. Apache-2.0.
"""Losses of preference pairs with a weight for each token."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import torch.nn.functional as F
from torch import Tensor

from addp_mm.alignment.token_metrics import mean_over_tokens, token_divergence
from addp_mm.errors import ConfigError

Form = Literal['sequence', 'token']
FORMS: tuple[Form, ...] = ('sequence', 'token')


@dataclass(frozen=True)
class SequenceLogProbs:
    """What a loss needs to know of the chosen, or of the rejected, sequences.

    Args:
        policy: Log-probabilities of the tokens under the model that is trained, (B, L).
        reference: Log-probabilities under the frozen model, (B, L).
        mask: (B, L), bool, True where there is a token. Defaults to None: everywhere.
        weights: Of the tokens, (B, L), see :func:`~addp_mm.alignment.token_weights`. Defaults to
            None: 1 everywhere.
        kl: From :func:`sequential_kl`, (B,), for ``kl_weight``. Defaults to None.

    Raises:
        ValueError: The shapes differ.
    """

    policy: Tensor
    reference: Tensor
    mask: Tensor | None = None
    weights: Tensor | None = None
    kl: Tensor | None = None

    def __post_init__(self) -> None:
        shapes = {
            name: tuple(value.shape)
            for name in ('policy', 'reference', 'mask', 'weights')
            if (value := getattr(self, name)) is not None
        }
        if self.policy.dim() != 2 or len(set(shapes.values())) > 1:
            raise ValueError(f'policy, reference, mask and weights must be (B, L), got {shapes}')

    def log_ratios(self) -> Tensor:
        """Log-ratios of policy and reference times the weights, (B, L); 0 without a token."""
        ratios = self.policy - self.reference
        if self.weights is not None:
            ratios = ratios * self.weights.detach()
        return ratios if self.mask is None else ratios.masked_fill(~self.mask, 0)

    def mean_log_likelihood(self) -> Tensor:
        """Mean log-probability of a token under the policy, for each sequence, (B,)."""
        return mean_over_tokens(self.policy, self.mask)


@dataclass(frozen=True)
class PreferenceLoss:
    """Loss of pairs of a chosen and a rejected sequence.

    These losses are settings of it:

    - DPO (arXiv 2305.18290): the defaults, sequences without weights.
    - TokenDPO without weights: ``form='token'``.
    - TDPO2 (arXiv 2404.11999): ``kl_weight`` above 0; sequences with ``kl``.
    - RPO (arXiv 2404.19733): ``likelihood_weight`` above 0.
    - cDPO (arXiv 2411.19943): sequences with weights. The paper's is ``form='sequence'``, that of
      the released code is ``form='token'``.

    Args:
        beta: Scale of the log-ratios: the reward of a sequence is beta times their sum. Defaults to
            0.1.
        form: 'sequence': one log-sigmoid for each pair, of the difference of the summed log-ratios.
            'token': one for each position, of the difference there; the loss is their mean over all
            positions, also those without a token. Defaults to 'sequence'.
        label_smoothing: Share of the pairs of which the rejected sequence may be the better one, in
            [0, 0.5). Defaults to 0.
        likelihood_weight: Of the negative mean log-probability of a chosen token. Defaults to 0.
        kl_weight: Of the difference of the sequential divergences in the margin; for the form
            'sequence' only. Defaults to 0.

    Raises:
        ConfigError: An option is out of its range.

    Example:
        >>> chosen = SequenceLogProbs(torch.tensor([[-1.0]]), torch.tensor([[-1.0]]))
        >>> rejected = SequenceLogProbs(torch.tensor([[-3.0]]), torch.tensor([[-2.0]]))
        >>> round(PreferenceLoss(beta=1.0)(chosen, rejected).item(), 4)  # log(1 + exp(-1))
        0.3133
    """

    beta: float = 0.1
    form: Form = 'sequence'
    label_smoothing: float = 0.0
    likelihood_weight: float = 0.0
    kl_weight: float = 0.0

    def __post_init__(self) -> None:
        if self.form not in FORMS:
            raise ConfigError(f'form must be one of {FORMS}, got {self.form!r}')
        if not 0 < self.beta < math.inf:
            raise ConfigError(f'beta must be positive and finite, got {self.beta}')
        if not 0 <= self.label_smoothing < 0.5:
            raise ConfigError(f'label_smoothing must be in [0, 0.5), got {self.label_smoothing}')
        for name in ('likelihood_weight', 'kl_weight'):
            if not 0 <= getattr(self, name) < math.inf:
                raise ConfigError(f'{name} must be finite and at least 0, got {getattr(self, name)}')
        if self.kl_weight and self.form == 'token':
            raise ConfigError("kl_weight compares whole sequences: it needs form='sequence'")

    def __call__(self, chosen: SequenceLogProbs, rejected: SequenceLogProbs) -> Tensor:
        """The loss, a scalar: mean of :meth:`losses`, and the likelihood term.

        Args:
            chosen: The better sequences of B pairs.
            rejected: The worse ones.

        Raises:
            ValueError: The shapes do not fit, or ``kl`` is missing.
        """
        loss = self.losses(chosen, rejected).mean()
        if self.likelihood_weight:
            loss = loss - self.likelihood_weight * chosen.mean_log_likelihood().mean()
        return loss

    def losses(self, chosen: SequenceLogProbs, rejected: SequenceLogProbs) -> Tensor:
        """The loss of each pair, (B,), or of each position, (B, L), without the likelihood term."""
        margins = self.margins(chosen, rejected)
        smoothing = self.label_smoothing
        return -(1 - smoothing) * F.logsigmoid(margins) - smoothing * F.logsigmoid(-margins)

    def margins(self, chosen: SequenceLogProbs, rejected: SequenceLogProbs) -> Tensor:
        """Reward of the chosen side minus that of the rejected side, (B,), or (B, L)."""
        better, worse = chosen.log_ratios(), rejected.log_ratios()
        if self.form == 'token':
            if better.shape != worse.shape:
                raise ValueError(
                    "form='token' compares equal positions: both sides must have one shape, got "
                    f'{tuple(better.shape)} and {tuple(worse.shape)}'
                )
            return self.beta * (better - worse)
        margins = better.sum(1) - worse.sum(1)
        if self.kl_weight:
            if chosen.kl is None or rejected.kl is None:
                raise ValueError('kl_weight needs the sequential divergence kl of both sides')
            margins = margins - self.kl_weight * (rejected.kl - chosen.kl.detach())
        return self.beta * margins


def sequential_kl(policy_logits: Tensor, reference_logits: Tensor, mask: Tensor | None = None) -> Tensor:
    """Divergence of the policy from the reference, summed over a sequence (arXiv 2404.11999).

    At each position it is KL(reference ‖ policy) of the next token, in nats.

    Args:
        policy_logits: (B, L, K).
        reference_logits: (B, L, K).
        mask: (B, L), bool, True where there is a token. Defaults to None: everywhere.

    Returns:
        (B,).
    """
    divergence = token_divergence(reference_logits, policy_logits)
    return (divergence if mask is None else divergence.masked_fill(~mask, 0)).sum(1)
