# Copyright (c) addp_mm contributors. Apache-2.0.
"""The package versions and the machine that a result was measured with."""

from __future__ import annotations

import os
import platform
from importlib import metadata

_PACKAGES = (
    'torch',
    'torchvision',
    'timm',
    'numpy',
    'mmengine',
    'onedl-mmengine',
    'mmcv-lite',
    'mmcv',
    'onedl-mmcv',
    'mmdet',
    'onedl-mmdetection',
    'mmsegmentation',
    'onedl-mmsegmentation',
    'mmpretrain',
    'onedl-mmpretrain',
)


def cores() -> int:
    """Number of CPU cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, 'sched_getaffinity') else os.cpu_count() or 1


def versions() -> dict[str, str]:
    """Versions of this package, of Python and of the packages that results depend on."""
    from addp_mm.version import __version__

    installed = {str(found.metadata['Name']).lower(): found.version for found in metadata.distributions()}
    packages = {name: installed[name] for name in _PACKAGES if name in installed}
    return {'addp_mm': __version__, 'Python': platform.python_version(), **packages}


def machine_class() -> str:
    """One line on the machine: cores, architecture and GPU."""
    from addp_mm.devices import accelerator_name

    gpu = accelerator_name() or 'no GPU'
    return f'{cores()} CPU core{"s" if cores() > 1 else ""} ({platform.machine()}), {gpu}'
