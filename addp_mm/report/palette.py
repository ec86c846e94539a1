# Copyright (c) addp_mm contributors. Apache-2.0.
"""Colours of all charts."""

#: Lines and bars, in their order.
COLOURS = ('#14708c', '#c8742b', '#6a8f3c', '#8a5a9e', '#b23a48', '#3d5a80', '#997b2d', '#555555')
#: Names of axes, and lines in the background.
SOFT = '#66635b'
