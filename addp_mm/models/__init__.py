# Copyright (c) addp_mm contributors. Apache-2.0.
"""The stations of ADDP. Importing this package registers them all."""
from addp_mm.models import backbones, heads, losses, necks, predictors, pretrained, selfsup, tokenizers

__all__ = ['backbones', 'heads', 'losses', 'necks', 'predictors', 'pretrained', 'selfsup', 'tokenizers']
