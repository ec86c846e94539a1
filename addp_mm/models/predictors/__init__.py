# Copyright (c) addp_mm contributors. Apache-2.0.
"""Token predictors: visible tokens to probabilities of masked ones."""

from addp_mm.models.predictors.masked_token_predictor import MaskedTokenPredictor

__all__ = ['MaskedTokenPredictor']
