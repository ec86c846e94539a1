# Copyright (c) addp_mm contributors. Apache-2.0.
"""Check which OpenMMLab packages are installed, before any of them is imported.

Two families provide the same import names: the originals and the maintained onedl forks. pip does
not detect that they overwrite each other, and mmdet 3.3 refuses mmcv 2.2 only during an import.
This module raises one error for each such case, with the command that fixes it. A missing package
is an error only if it is needed; mmengine is always needed.
"""

from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError
from importlib.metadata import version as _installed_version
from importlib.util import find_spec


@dataclass(frozen=True)
class Provider:
    """A distribution that provides one of the import names.

    Attributes:
        name: Name of the distribution.
        supported: Versions that addp_mm supports.
        needs_mmcv: Versions of mmcv that it accepts; '' for all versions.
    """

    name: str
    supported: str
    needs_mmcv: str = ''


# The extras of setup.cfg name the versions that pip installs; a test compares them with these.
# Forks must have at least those versions. Originals are no longer developed, and older versions
# work.
ORIGINALS = {
    'mmengine': (Provider('mmengine', '>=0.10.4,<1'), Provider('mmengine-lite', '>=0.10.4,<1')),
    'mmcv': (Provider('mmcv-lite', '>=2.0,<3'), Provider('mmcv', '>=2.0,<3'), Provider('mmcv-full', '>=2.0,<3')),
    'mmdet': (Provider('mmdet', '>=3.3,<4', '>=2.0.0rc4,<2.2'),),
    'mmseg': (Provider('mmsegmentation', '>=1.2,<2', '>=2.0.0rc4,<2.2'),),
    'mmpretrain': (Provider('mmpretrain', '>=1.2,<2', '>=2.0,<2.4'),),
}
FORKS = {
    'mmengine': (Provider('onedl-mmengine', '>=0.10.12,<1'),),
    'mmcv': (Provider('onedl-mmcv', '>=2.3.6,<3'),),
    'mmdet': (Provider('onedl-mmdetection', '>=3.5.1,<4', '>=2.3'),),
    'mmseg': (Provider('onedl-mmsegmentation', '>=1.4.2,<2', '>=2.3'),),
    'mmpretrain': (Provider('onedl-mmpretrain', '>=1.3.6,<2', '>=2.3,<2.4'),),
}
INSTALL_ORIGINALS = "pip install 'addp_mm[openmmlab]'"
INSTALL_FORKS = "pip install 'addp_mm[onedl]'"
INSTALL_MMCV = 'pip install mmcv-lite==2.1.0'
INSTALL_FORKS_MMCV = f"pip install '{FORKS['mmcv'][0].name}{FORKS['mmcv'][0].supported}'"
_NOT_INSTALLED = (
    f'which is not installed. Type\n    {INSTALL_ORIGINALS}\nor, for the maintained forks,\n    {INSTALL_FORKS}'
)

Lookup = Callable[[str], 'str | None']


def installed_version(distribution: str) -> str | None:
    """Version of an installed distribution, or None."""
    try:
        return _installed_version(distribution)
    except PackageNotFoundError:
        return None


def check_packages(
    lookup: Lookup = installed_version, importable: Callable[[str], bool] = lambda name: find_spec(name) is not None
) -> None:
    """Check that the installed OpenMMLab packages can work together.

    Args:
        lookup: Returns the version of a distribution, None if it is not installed. Defaults to
            :func:`installed_version`.
        importable: Whether a top-level import name can be found. Defaults to a search for it.

    Raises:
        ImportError: mmengine is missing, both families are installed, a version is not supported,
            or a package does not accept the installed mmcv. The message has a command that fixes
            it.
    """
    if not importable('mmengine'):
        raise ImportError(f'addp_mm needs mmengine, {_NOT_INSTALLED}')
    originals, forks = _installed(ORIGINALS, lookup), _installed(FORKS, lookup)
    both = sorted(set(originals) & set(forks))
    if both:
        names = ' '.join(provider.name for provider, _ in [*originals.values(), *forks.values()])
        raise ImportError(
            f'{" and ".join(both)}: installed both as original and as onedl fork. They write into the same folders, '
            f'so that neither is complete. Type\n    pip uninstall -y {names}\n    {INSTALL_ORIGINALS}\n'
            f'or {INSTALL_FORKS} as the last line.'
        )
    installed = {**originals, **forks}
    complaints = [*_unsupported(installed), *_wrong_mmcv(installed, importable)]
    if complaints:
        raise ImportError('\n'.join(complaints))


def require_mmpretrain() -> None:
    """Check that mmpretrain is installed, which has the base class of the algorithms.

    Raises:
        ImportError: mmpretrain is not installed.
    """
    if find_spec('mmpretrain') is None:
        raise ImportError(f"addp_mm's algorithms need mmpretrain, {_NOT_INSTALLED}")


def _installed(family: dict, lookup: Lookup) -> dict[str, tuple[Provider, str]]:
    found: dict[str, tuple[Provider, str]] = {}
    for module, providers in family.items():
        for provider in providers:
            version = lookup(provider.name)
            if version is not None:
                found.setdefault(module, (provider, version))
    return found


def _fits(version: str, specifier: str) -> bool:
    from packaging.specifiers import SpecifierSet

    return SpecifierSet(specifier).contains(version, prereleases=True)


def _unsupported(installed: dict):
    for provider, version in installed.values():
        if not _fits(version, provider.supported):
            yield (
                f'{provider.name} {version} is not supported; addp_mm needs {provider.name} {provider.supported}. '
                f"Type\n    pip install '{provider.name}{provider.supported}'"
            )


def _wrong_mmcv(installed: dict, importable: Callable[[str], bool]):
    mmcv, mmcv_version = installed.get('mmcv', (None, None))
    for module in ('mmdet', 'mmseg', 'mmpretrain'):
        provider, version = installed.get(module, (None, None))
        if provider is None:
            continue
        fork = provider in FORKS[module]
        install = INSTALL_FORKS_MMCV if fork else INSTALL_MMCV
        if mmcv is None:
            if not importable('mmcv'):
                yield f'{provider.name} {version} needs mmcv, which is not installed. Type\n    {install}'
        elif not _fits(mmcv_version, provider.needs_mmcv):
            # mmcv and mmcv-lite share one folder: remove the first before you install the second
            uninstall = '' if install.startswith(f'pip install {mmcv.name}=') else f'pip uninstall -y {mmcv.name}\n    '
            yield (
                f'{provider.name} {version} needs mmcv {provider.needs_mmcv}, but {mmcv.name} {mmcv_version} is '
                f'installed. Type\n    {uninstall}{install}'
            )
