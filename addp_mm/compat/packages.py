# Copyright (c) addp_mm contributors. Apache-2.0.
"""Finding an installed OpenMMLab package and its configs."""

import os
from importlib.metadata import PackageNotFoundError, distribution
from importlib.util import find_spec
from types import ModuleType

from addp_mm.compat.importing import replace
from addp_mm.compat.versions import FORKS, Lookup, installed_version


def mend_package_names(config_utils: ModuleType, lookup: Lookup = installed_version) -> None:
    """Let ``_base_ = 'mmseg::…'`` find the fork of mmsegmentation.

    mmengine asks for the distribution's name, and the fork's is another; asked for the import name
    it finds the folder. Applied to ``mmengine.config.utils`` where only the fork is installed.
    """
    names = config_utils.MODULE2PACKAGE
    for module, providers in FORKS.items():
        package = names.get(module, module)
        if package != module and lookup(package) is None and any(lookup(fork.name) for fork in providers):
            names[module] = module


def mend_package_utils(package_utils: ModuleType) -> None:
    """Look packages up without ``pkg_resources``, which setuptools 81 no longer has.

    Applied to ``mmengine.utils.package_utils`` where it is missing and asked for.
    """
    if find_spec('pkg_resources') is not None:
        return
    try:
        package_utils.is_installed('mmengine')
    except ModuleNotFoundError as error:
        if error.name != 'pkg_resources':
            raise
        for name, successor in (
            ('is_installed', is_installed),
            ('get_installed_path', get_installed_path),
            ('package2module', package2module),
        ):
            replace(package_utils, name, lambda original, successor=successor: _alias(successor))


def _alias(function):

    def alias(package: str):
        return function(package)

    return alias


def is_installed(package: str) -> bool:
    """Whether ``package`` is an installed distribution or an importable module."""
    if installed_version(package) is not None:
        return True
    spec = find_spec(package)
    return spec is not None and spec.origin is not None


def package2module(package: str) -> str:
    """Import name of an installed distribution.

    Raises:
        ValueError: The distribution does not say.
    """
    lines = (distribution(package).read_text('top_level.txt') or '').split()
    if not lines:
        raise ValueError(f'can not infer the module name of {package}')
    return lines[0]


def get_installed_path(package: str) -> str:
    """Folder of the module that a distribution or an import name stands for.

    Raises:
        PackageNotFoundError: No such distribution and no such module.
    """
    spec = find_spec(package)
    if spec is None and installed_version(package) is not None:
        spec = find_spec(package2module(package))
    if spec is None or spec.origin is None:
        raise PackageNotFoundError(package)
    return os.path.dirname(spec.origin)
