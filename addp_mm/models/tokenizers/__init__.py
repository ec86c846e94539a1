# Copyright (c) addp_mm contributors. Apache-2.0.
"""Tokenizers: images to token ids, latents to images."""

from addp_mm.models.tokenizers.vq_tokenizer import VQTokenizer

__all__ = ['VQTokenizer']
