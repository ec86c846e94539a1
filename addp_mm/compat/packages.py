# Copyright (c) addp_mm contributors. Apache-2.0.
"""Find an installed OpenMMLab package and its configs."""

import functools
import os
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, distribution
from importlib.util import find_spec
from typing import Any

from addp_mm.compat.importing import replace
from addp_mm.compat.versions import FORKS, Lookup, installed_version


def patch_package_names(config_utils: Any, lookup: Lookup = installed_version) -> bool:
    """Make ``_base_ = 'mmseg::…'`` find the fork of mmsegmentation.

    mmengine looks up the name of the distribution, but the fork has another name. With the import
    name it finds the folder.

    Args:
        config_utils: ``mmengine.config.utils``.
        lookup: Returns the version of a distribution. Defaults to :func:`installed_version`.

    Returns:
        Whether a fork is installed without the original.
    """
    names, patched = config_utils.MODULE2PACKAGE, False
    for module, providers in FORKS.items():
        package = names.get(module, module)
        if package != module and lookup(package) is None and any(lookup(fork.name) for fork in providers):
            names[module], patched = module, True
    return patched


def patch_package_utils(package_utils: Any) -> bool:
    """Look packages up without ``pkg_resources``, which setuptools 81 no longer has.

    Args:
        package_utils: ``mmengine.utils.package_utils``.

    Returns:
        Whether ``pkg_resources`` is needed and missing.
    """
    if find_spec('pkg_resources') is not None:
        return False
    try:
        package_utils.is_installed('mmengine')
    except ModuleNotFoundError as error:
        if error.name != 'pkg_resources':
            raise
        for function in (is_installed, get_installed_path, package2module):
            replace(package_utils, function.__name__, functools.partial(_same_as, function))
        return True
    return False


def _same_as(function: Callable[[str], Any], _: Callable) -> Callable[[str], Any]:
    """A new function that calls another one, so that its ``__wrapped__`` can be set."""
    return lambda package: function(package)


def is_installed(package: str) -> bool:
    """Whether ``package`` is an installed distribution or an importable module."""
    if installed_version(package) is not None:
        return True
    spec = find_spec(package)
    return spec is not None and spec.origin is not None


def package2module(package: str) -> str:
    """Import name of an installed distribution.

    Raises:
        ValueError: The distribution does not list its modules.
    """
    lines = (distribution(package).read_text('top_level.txt') or '').split()
    if not lines:
        raise ValueError(f'the distribution {package} does not list its modules')
    return lines[0]


def get_installed_path(package: str) -> str:
    """Folder of a module, found by the name of its distribution or its import name.

    Raises:
        PackageNotFoundError: Neither a distribution nor a module has that name.
    """
    spec = find_spec(package)
    if spec is None and installed_version(package) is not None:
        spec = find_spec(package2module(package))
    if spec is None or spec.origin is None:
        raise PackageNotFoundError(package)
    return os.path.dirname(spec.origin)
