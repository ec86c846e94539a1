# Copyright (c) addp_mm contributors. Apache-2.0.
"""Names that Python removed, for the modules that still use them."""

import pkgutil
from importlib import import_module
from importlib.util import find_spec
from typing import Any

from addp_mm.compat.importing import ModuleView


def patch_find_loader(module: Any) -> bool:
    """Give a module ``pkgutil.find_loader``, which Python 3.14 removed.

    It is asked whether mmcv has compiled operators, so that no Runner could be built.

    Args:
        module: ``mmengine.utils.dl_utils.misc`` or ``mmcv.utils.ext_loader``.

    Returns:
        Whether the module imports pkgutil, and the function is gone.
    """
    if hasattr(pkgutil, 'find_loader') or not hasattr(module, 'pkgutil'):
        return False
    module.pkgutil = ModuleView('pkgutil', find_loader=find_spec)
    return True


def patch_distutils(module: Any) -> bool:
    """Make ``distutils`` importable, which Python 3.12 removed and setuptools provides.

    setuptools does so when the interpreter starts, but not in an environment that finds it through
    another one.

    Args:
        module: ``mmengine.utils.dl_utils.collect_env``.

    Returns:
        Whether distutils was not found.
    """
    if find_spec('distutils') is not None:
        return False
    import_module('setuptools')
    return True
