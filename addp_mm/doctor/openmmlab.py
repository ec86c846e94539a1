# Copyright (c) addp_mm contributors. Apache-2.0.
"""The OpenMMLab packages, mmcv's operators, and the patches of addp_mm."""

import importlib
import re
from collections.abc import Iterator
from importlib.util import find_spec
from typing import Literal

from addp_mm.compat.versions import (
    FORKS,
    INSTALL_FORKS,
    INSTALL_FORKS_MMCV,
    INSTALL_MMCV,
    INSTALL_ORIGINALS,
    ORIGINALS,
    check_packages,
    installed_version,
)
from addp_mm.doctor.finding import Finding, first_line

# what a config imports; the package itself can be imported where this fails
_PARTS = {'mmdet': 'mmdet.models', 'mmseg': 'mmseg.models', 'mmpretrain': 'mmpretrain.models'}


def check_openmmlab() -> Iterator[Finding]:
    """Which OpenMMLab packages are installed, importable and compatible."""
    for module in ORIGINALS:
        found = [
            f'{provider.name} {version} ({family})'
            for family, providers in (('original', ORIGINALS[module]), ('onedl fork', FORKS[module]))
            for provider in providers
            if (version := installed_version(provider.name))
        ]
        if not found and find_spec(module):
            found = ['without package metadata']
        if found:
            try:
                importlib.import_module(_PARTS.get(module, module))
            except Exception as error:
                remedy = f'follow the errors above; else {_reinstall(module)}'
                yield Finding('error', module, f'{", ".join(found)}, cannot be imported: {first_line(error)}', remedy)
            else:
                yield Finding('ok', module, ', '.join(found))
        else:
            status: Literal['warning', 'error'] = 'error' if module == 'mmengine' else 'warning'
            yield Finding(status, module, 'not installed', f'{INSTALL_ORIGINALS}, or {INSTALL_FORKS}')
    yield from _shared_folders()
    try:
        check_packages(installed_version)
    except ImportError as error:
        problem, _, remedy = str(error).partition('Type\n')
        yield Finding('error', 'OpenMMLab', problem.strip(), remedy)
    else:
        yield Finding('ok', 'OpenMMLab', 'the versions fit together')


def _reinstall(module: str) -> str:
    """The command that writes all files of an installed package again."""
    names = [each.name for each in (*ORIGINALS[module], *FORKS[module]) if installed_version(each.name)]
    return f'pip install --force-reinstall --no-deps {" ".join(names) or module}'


def _shared_folders() -> Iterator[Finding]:
    """Original packages that write into one folder, such as mmcv and mmcv-lite."""
    for module in ('mmengine', 'mmcv'):
        versions = {each.name: version for each in ORIGINALS[module] if (version := installed_version(each.name))}
        if len(versions) > 1:
            text = f'{" and ".join(f"{name} {version}" for name, version in versions.items())} write into one folder'
            install = INSTALL_MMCV if module == 'mmcv' else INSTALL_ORIGINALS
            status: Literal['warning', 'error'] = 'error' if len(set(versions.values())) > 1 else 'warning'
            yield Finding(status, module, text, f'pip uninstall -y {" ".join(versions)} && {install}')


def check_operators() -> Iterator[Finding]:
    """Whether mmcv's operators are compiled or those of :mod:`addp_mm.compat.ops`."""
    from addp_mm.compat.ops import OPS

    spec = find_spec('mmcv._ext')
    if spec is None:
        yield Finding('warning', 'mmcv operators', 'none: most detectors cannot be built', 'unset ADDP_MM_COMPAT')
        return
    try:
        importlib.import_module('mmcv._ext')
    except Exception as error:
        remedy = f'install an mmcv that was compiled for this torch, or: {INSTALL_MMCV} (or {INSTALL_FORKS_MMCV})'
        yield Finding('error', 'mmcv operators', f'compiled, but do not load: {first_line(error)}', remedy)
        return
    if spec.origin == 'addp_mm.compat.ops':
        names = sorted({re.sub('_(forward|backward).*', '', name) for name in OPS if not name.startswith('get_')})
        text = f'none is compiled; addp_mm has {", ".join(names)}; others raise MissingOpError when they are called'
        yield Finding('ok', 'mmcv operators', text)
        yield _on_their_device()
    else:
        yield Finding('ok', 'mmcv operators', f'compiled in {spec.origin}; those of addp_mm are not used')


def _on_their_device() -> Finding:
    """Which operators the accelerator leaves to the CPU."""
    from addp_mm.devices import default_device
    from addp_mm.doctor.operators import left_to_the_cpu

    device = default_device()
    names = ', '.join(left_to_the_cpu(device))
    text = f'their tensors are copied to the CPU for {names}' if names else 'all are computed there'
    return Finding('ok', f'mmcv operators on {device.type}', text)


def check_patches() -> Iterator[Finding]:
    """Which patches of :mod:`addp_mm.compat` were applied to the packages imported so far."""
    from addp_mm import compat

    if compat.is_off():
        remedy = 'unset ADDP_MM_COMPAT, unless you want the packages unchanged'
        yield Finding('warning', 'patches', 'none: ADDP_MM_COMPAT=off', remedy)
        return
    faults = '; '.join(f'{patch.name} ({patch.fault})' for patch in compat.applied()) or 'none'
    yield Finding('ok', 'patches', f'applied: {faults}')
    names = ', '.join(patch.name for patch in compat.waiting()) or 'none'
    yield Finding('ok', 'more patches', f'applied when their module is imported, if it has the fault: {names}')
