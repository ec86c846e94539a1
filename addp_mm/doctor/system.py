# Copyright (c) addp_mm contributors. Apache-2.0.
"""The machine: Python, folders and limits of the system."""

import os
import platform
import shutil
import sys
import tempfile
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, metadata
from pathlib import Path

import addp_mm
from addp_mm.doctor.finding import Finding, fits
from addp_mm.version import __version__

_GIB = 2**30
_NO_WORKERS = '--cfg-options train_dataloader.num_workers=0 train_dataloader.persistent_workers=False'


def check_system() -> Iterator[Finding]:
    """Operating system, Python and addp_mm itself."""
    version = platform.python_version()
    text = f'{version} in {sys.prefix}, on {platform.platform()}'
    try:
        supported = metadata('addp_mm')['Requires-Python'] or ''
    except PackageNotFoundError:
        supported = ''
        yield Finding(
            'ok', 'addp_mm', f'{__version__}, not installed: imported from {os.path.dirname(addp_mm.__file__)}'
        )
    else:
        yield Finding('ok', 'addp_mm', f'{__version__} in {os.path.dirname(addp_mm.__file__)}')
    if fits(version, supported):
        yield Finding('ok', 'Python', text)
    else:
        yield Finding('error', 'Python', text, f'python3.12 -m venv .venv, or another Python {supported}')


def check_folders() -> Iterator[Finding]:
    """Whether runs can write below the current folder, and temporary files somewhere."""
    folder = Path.cwd()
    if not os.access(folder, os.W_OK):
        remedy = 'cd to a folder of yours, or give --work-dir FOLDER'
        yield Finding('warning', 'current folder', f'{folder} is not writable, so that work_dirs/ fails', remedy)
    elif (free := shutil.disk_usage(folder).free / _GIB) < 2:
        remedy = 'free some space, or give --work-dir FOLDER on another disk'
        yield Finding('warning', 'current folder', f'{folder} has only {free:.1f} GiB left', remedy)
    else:
        yield Finding('ok', 'current folder', f'{folder} is writable, {free:.0f} GiB are free')
    try:
        tempfile.gettempdir()
    except FileNotFoundError as error:
        yield Finding('error', 'temporary files', str(error), 'mkdir -p ~/tmp && export TMPDIR=~/tmp')


def check_shared_memory(folder: str = '/dev/shm') -> Iterator[Finding]:  # noqa: S108  (no file is made)
    """Whether worker processes have enough shared memory; containers often have 64 MiB."""
    if not os.path.isdir(folder):
        return
    size, free = (number / _GIB for number in _total_and_free(folder))
    text = f'{folder} has {free:.2f} of {size:.2f} GiB free'
    if free < 1:
        remedy = f'docker run --shm-size 8g or --ipc host; or train without worker processes: {_NO_WORKERS}'
        yield Finding('warning', 'shared memory', f'{text}; worker processes may die with "Bus error"', remedy)
    else:
        yield Finding('ok', 'shared memory', text)


def _total_and_free(folder: str) -> tuple[int, int]:
    usage = shutil.disk_usage(folder)
    return usage.total, usage.free


def check_open_files() -> Iterator[Finding]:
    """Whether worker processes may open enough files."""
    try:
        import resource
    except ImportError:  # Windows
        return
    limit = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    if limit != resource.RLIM_INFINITY and limit < 1024:
        yield Finding('warning', 'open files', f'at most {limit} in a process', 'ulimit -n 65536')
