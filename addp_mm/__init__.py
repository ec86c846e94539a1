# Copyright (c) addp_mm contributors. Apache-2.0.
"""ADDP (Alternating Denoising Diffusion Process) for OpenMMLab.

Importing this package activates the patches of :mod:`addp_mm.compat` and lets mmengine find the
shipped configs. It imports neither torch nor an OpenMMLab package. The ``addp`` command therefore
prints its help at once, and ``addp doctor`` runs where these packages are broken.
"""

import sys
from importlib import import_module

from addp_mm import compat, extensions
from addp_mm.compat.versions import check_packages
from addp_mm.config.shipped import config_path
from addp_mm.version import __version__

__all__ = ['__version__', 'config_path', 'registry']

compat.install()
extensions.install()
if 'mmengine' in sys.modules:  # imported by mmengine, as for custom_imports=['addp_mm']
    check_packages()


def __getattr__(name: str):
    if name == 'registry':  # it imports mmengine
        return import_module('addp_mm.registry')
    raise AttributeError(f'module {__name__!r} has no attribute {name!r}')
