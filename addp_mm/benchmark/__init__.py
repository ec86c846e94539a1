# Copyright (c) addp_mm contributors. Apache-2.0.
"""Backbones compared under the same head and data: cost, speed and metrics."""
