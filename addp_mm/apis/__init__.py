# Copyright (c) addp_mm contributors. Apache-2.0.
"""Functions for notebooks and scripts: load a model, generate, inpaint, extract features."""

from addp_mm.apis.generate import extract_features, generate, inpaint
from addp_mm.apis.load_model import load_model
from addp_mm.apis.load_published import load_published

__all__ = ['extract_features', 'generate', 'inpaint', 'load_model', 'load_published']
