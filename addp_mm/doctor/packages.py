# Copyright (c) addp_mm contributors. Apache-2.0.
"""Packages that addp_mm needs in every installation, except torch and OpenMMLab's."""

import importlib
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, requires
from importlib.util import find_spec

from addp_mm.compat.multimodal import NEEDS
from addp_mm.compat.versions import installed_version
from addp_mm.doctor.devices import INSTALL_TORCH
from addp_mm.doctor.finding import Finding, first_line, fits

_OPENCV = ('opencv-python', 'opencv-python-headless', 'opencv-contrib-python', 'opencv-contrib-python-headless')
# modules that fail with another numpy or protobuf than theirs, and the command that repairs them
_COMPILED = {
    'pycocotools.mask': 'pip install --force-reinstall --no-cache-dir --no-deps pycocotools',
    'scipy.sparse': 'pip install --upgrade scipy',
    'shapely': 'pip install --upgrade shapely',
    'matplotlib.pyplot': 'pip install --upgrade matplotlib',
    'timm': 'pip install --upgrade timm',
    'torch.utils.tensorboard': 'pip install --upgrade tensorboard protobuf',
}


def check_requirements() -> Iterator[Finding]:
    """Packages that addp_mm needs in every installation, except OpenMMLab's."""
    from packaging.requirements import Requirement

    try:
        lines = requires('addp_mm') or []
    except PackageNotFoundError:
        lines = ['torch', 'torchvision', 'timm', 'numpy', 'safetensors']
    good = []
    for requirement in map(Requirement, lines):
        if requirement.marker and not requirement.marker.evaluate({'extra': ''}):
            continue
        if requirement.name == 'opencv-python':  # see check_opencv, which also accepts the headless package
            continue
        version = installed_version(requirement.name)
        install = f"pip install '{requirement.name}{requirement.specifier}'"
        if requirement.name in ('torch', 'torchvision'):
            install = INSTALL_TORCH
        if version is None:
            yield Finding('error', requirement.name, 'not installed', install)
        elif not fits(version, str(requirement.specifier)):
            yield Finding('error', requirement.name, f'{version} is not supported', install)
        else:
            good.append(f'{requirement.name} {version}')
    yield Finding('ok', 'packages', ', '.join(good) or 'none')


def check_opencv() -> Iterator[Finding]:
    """Whether OpenCV can be imported, and by one package; the usual one needs libGL."""
    installed = {name: version for name in _OPENCV if (version := installed_version(name))}
    names = ', '.join(f'{name} {version}' for name, version in installed.items())
    wanted = 'opencv-python-headless' if any('headless' in name for name in installed) else 'opencv-python'
    try:
        import cv2
    except Exception as error:
        uninstall = ' '.join(installed) or 'opencv-python'
        remedy = f'pip uninstall -y {uninstall} && pip install --force-reinstall opencv-python-headless'
        yield Finding('error', 'opencv', f'cv2 cannot be imported: {first_line(error)}', remedy)
        return
    if len(set(installed.values())) > 1:
        text = f'{names} write into the same folder; {cv2.__version__} is used'
        remedy = f'pip uninstall -y {" ".join(installed)} && pip install {wanted}'
        yield Finding('warning', 'opencv', text, remedy)
    else:
        yield Finding('ok', 'opencv', f'{cv2.__version__} ({names or "without package metadata"})')


def check_setuptools() -> Iterator[Finding]:
    """Whether ``pkg_resources`` exists, which the original mmengine and mim import."""
    version = installed_version('setuptools') or 'not installed'
    if find_spec('pkg_resources'):
        yield Finding('ok', 'setuptools', f'{version}, with pkg_resources')
    elif installed_version('onedl-mmengine'):
        yield Finding('ok', 'setuptools', f'{version}; the forks need no pkg_resources')
    else:
        text = (
            f'{version}: no pkg_resources. addp_mm does without; mim, and scripts of other packages that read '
            "_base_ = 'mmdet::…' before they import addp_mm, do not"
        )
        yield Finding('warning', 'setuptools', text, "pip install 'setuptools<81'")


def check_compiled() -> Iterator[Finding]:
    """Whether packages can be imported that break with another numpy or protobuf than theirs."""
    for module, remedy in _COMPILED.items():
        if find_spec(module.partition('.')[0]) is None:
            continue
        try:
            importlib.import_module(module)
        except Exception as error:
            yield Finding('error', module, f'cannot be imported: {first_line(error)}', remedy)


def check_transformers() -> Iterator[Finding]:
    """Whether transformers, if it is there, fits mmpretrain and huggingface_hub."""
    from packaging.version import Version

    version = installed_version('transformers')
    if version is None:
        return
    hub = installed_version('huggingface_hub') or '0'
    if fits(version, '<5') and fits(hub, '>=1'):
        text = f'{version} does not accept huggingface_hub {hub}'
        yield Finding('warning', 'transformers', text, 'pip install --upgrade transformers')
    elif any(installed_version(name) and Version(version).release >= needs.below for name, needs in NEEDS.items()):
        text = f"{version}: mmpretrain's multimodal models are left out, since they need an older version"
        yield Finding('ok', 'transformers', text)
    else:
        yield Finding('ok', 'transformers', version)
