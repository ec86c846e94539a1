# Copyright (c) addp_mm contributors. Apache-2.0.
"""Heads of segmentors. They derive from mmsegmentation's base class; without it there are none."""

from importlib.util import find_spec

__all__ = []

if find_spec('mmseg') is not None:
    from addp_mm.models.decode_heads.linear_seg_head import LinearSegHead

    __all__ += ['LinearSegHead']
