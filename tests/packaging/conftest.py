# Copyright (c) addp_mm contributors. Apache-2.0.
"""A wheel of this checkout, installed where the checkout cannot be imported."""

import shutil
import sys
from pathlib import Path

import pytest
from helpers.clean_environment import ROOT, Environment, make_environment, run

# the files of a release; a local build/ or work_dirs/ must not be in it
SOURCES = (
    'addp_mm',
    'configs',
    'tools',
    'setup.py',
    'setup.cfg',
    'pyproject.toml',
    'MANIFEST.in',
    'model-index.yml',
    'README.md',
    'LICENSE',
    'Makefile',
    'CHANGELOG.md',
    'CITATION.cff',
    'CONTRIBUTING.md',
    'SECURITY.md',
)


@pytest.fixture(scope='session')
def sources(tmp_path_factory) -> Path:
    """A copy of the checkout, because building writes files next to the sources."""
    folder = tmp_path_factory.mktemp('sources')
    for name in SOURCES:
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns('__pycache__', '.mim'))
        else:
            shutil.copy2(ROOT / name, folder)
    return folder


@pytest.fixture(scope='session')
def wheel(sources, tmp_path_factory) -> Path:
    """Built from an sdist, so that the test detects if one of them is incomplete."""
    folder = tmp_path_factory.mktemp('dist')
    build = f'from setuptools import build_meta; print(build_meta.build_sdist({str(folder)!r}))'
    sdist = run(sys.executable, '-c', build, cwd=sources).split()[-1]
    run(
        sys.executable,
        '-m',
        'pip',
        'wheel',
        '--quiet',
        '--no-index',
        '--no-build-isolation',
        '--no-deps',
        '--wheel-dir',
        folder,
        folder / sdist,
        cwd=folder,
    )
    return next(folder.glob('*.whl'))


@pytest.fixture(scope='session')
def installed(wheel, tmp_path_factory) -> Environment:
    """An environment with the wheel."""
    environment = make_environment(tmp_path_factory.mktemp('wheel'))
    environment.install(wheel)
    return environment
