# Copyright (c) addp_mm contributors. Apache-2.0.
from addp_mm.models.predictors.masked_token_predictor import MaskedTokenPredictor

__all__ = ['MaskedTokenPredictor']
