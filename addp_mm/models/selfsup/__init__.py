# Copyright (c) addp_mm contributors. Apache-2.0.
from addp_mm.models.selfsup.addp import ADDP
from addp_mm.models.selfsup.frozen import freeze, is_loaded, mark_loaded
from addp_mm.models.selfsup.predictor_pretrain import PredictorPretrain
from addp_mm.models.selfsup.tokenizer_pretrain import TokenizerPretrain

__all__ = ['ADDP', 'PredictorPretrain', 'TokenizerPretrain', 'freeze', 'is_loaded', 'mark_loaded']
