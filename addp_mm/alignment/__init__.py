# Copyright (c) addp_mm contributors. Apache-2.0.
"""Alignment of a token generator with a reward: cDPO (arXiv 2411.19943) and its baselines.

The functions know nothing of images: they take logits and ids of any token model.
"""

from addp_mm.alignment.preference_loss import PreferenceLoss, SequenceLogProbs, sequential_kl
from addp_mm.alignment.token_scores import contrastive_scores, token_log_probs, token_weights

__all__ = [
    'PreferenceLoss',
    'SequenceLogProbs',
    'contrastive_scores',
    'sequential_kl',
    'token_log_probs',
    'token_weights',
]
