# Copyright (c) addp_mm contributors. Apache-2.0.
"""ADDP (Alternating Denoising Diffusion Process) for OpenMMLab."""

from addp_mm.config.shipped import config_path
from addp_mm.version import __version__

from addp_mm import registry  # isort: skip  # puts addp_mm.compat in force: `custom_imports=['addp_mm']` is enough

__all__ = ['__version__', 'config_path', 'registry']
