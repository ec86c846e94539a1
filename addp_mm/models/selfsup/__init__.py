# Copyright (c) addp_mm contributors. Apache-2.0.
"""Pre-training algorithms, composed of components."""

from addp_mm.compat.versions import require_mmpretrain

require_mmpretrain()

from addp_mm.models.selfsup.addp import ADDP  # noqa: E402
from addp_mm.models.selfsup.frozen import freeze, is_loaded, mark_loaded  # noqa: E402
from addp_mm.models.selfsup.predictor_pretrain import PredictorPretrain  # noqa: E402
from addp_mm.models.selfsup.tokenizer_pretrain import TokenizerPretrain  # noqa: E402
from addp_mm.models.selfsup.vqgan_pretrain import VQGANPretrain  # noqa: E402

__all__ = ['ADDP', 'PredictorPretrain', 'TokenizerPretrain', 'VQGANPretrain', 'freeze', 'is_loaded', 'mark_loaded']
