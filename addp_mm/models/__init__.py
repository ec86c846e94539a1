# Copyright (c) addp_mm contributors. Apache-2.0.
"""The stations of ADDP. Importing this package registers all but the algorithms.

``selfsup`` needs mmpretrain, which takes seconds to import and which a detector can do without: the registry imports
it when a name is not found among the stations.
"""
from addp_mm.models import backbones, heads, losses, necks, predictors, pretrained, tokenizers

__all__ = ['backbones', 'heads', 'losses', 'necks', 'predictors', 'pretrained', 'tokenizers']
