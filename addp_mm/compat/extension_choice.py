# Copyright (c) addp_mm contributors. Apache-2.0.
"""Choose the ``mmcv._ext`` that ``mmcv.ops`` calls, to compare two of them in one process."""

import importlib
import importlib.util
import pkgutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.machinery import PathFinder
from types import ModuleType

from .mmcv_ext import EXT_NAME, MMCVExtFinder


def own_extension() -> ModuleType:
    """The operators of :mod:`addp_mm.compat.ops`, also if the installed mmcv has compiled ones."""
    extension = ModuleType(EXT_NAME)
    MMCVExtFinder().exec_module(extension)
    return extension


def compiled_extension() -> ModuleType | None:
    """The compiled operators of the installed mmcv; None if it has none."""
    mmcv = importlib.util.find_spec('mmcv')
    where = mmcv.submodule_search_locations if mmcv else None
    if not where or PathFinder.find_spec(EXT_NAME, where) is None:
        return None
    return importlib.import_module(EXT_NAME)


@contextmanager
def calling(extension: ModuleType) -> Iterator[None]:
    """Let the functions of ``mmcv.ops`` call an extension.

    Args:
        extension: Of :func:`own_extension` or :func:`compiled_extension`.
    """
    ops = importlib.import_module('mmcv.ops')
    names = (info.name for info in pkgutil.iter_modules(ops.__path__, 'mmcv.ops.'))
    modules = [sys.modules[name] for name in names if hasattr(sys.modules.get(name), 'ext_module')]
    before = [vars(module)['ext_module'] for module in modules]
    try:
        for module in modules:
            vars(module)['ext_module'] = extension
        yield
    finally:
        for module, theirs in zip(modules, before, strict=True):
            vars(module)['ext_module'] = theirs
