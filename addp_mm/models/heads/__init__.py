# Copyright (c) addp_mm contributors. Apache-2.0.
"""Heads: token states to logits."""

from addp_mm.models.heads.token_head import TokenHead

__all__ = ['TokenHead']
