# Copyright (c) addp_mm contributors. Apache-2.0.
from addp_mm.models.tokenizers.vq_tokenizer import VQTokenizer

__all__ = ['VQTokenizer']
