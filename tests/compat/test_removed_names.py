# Copyright (c) addp_mm contributors. Apache-2.0.
"""Modules that use a removed name get it back, and no others."""

import pkgutil
import subprocess
import sys
from types import ModuleType

import mmcv.utils.ext_loader
import pytest
from mmengine.utils.dl_utils import misc

from addp_mm.compat.removed_names import patch_find_loader


@pytest.fixture
def without_find_loader(monkeypatch):
    """Python 3.14; the restored attributes are those of before the test."""
    for module in (misc, mmcv.utils.ext_loader):
        monkeypatch.setattr(module, 'pkgutil', pkgutil, raising=False)
    monkeypatch.delattr(pkgutil, 'find_loader', raising=False)


def test_compiled_operators_are_found_without_find_loader(without_find_loader):
    with pytest.raises(AttributeError, match='find_loader'):
        mmcv.utils.ext_loader.check_ops_exist()
    assert patch_find_loader(mmcv.utils.ext_loader)
    assert patch_find_loader(misc)
    assert mmcv.utils.ext_loader.check_ops_exist()
    assert misc.mmcv_full_available()
    assert misc.pkgutil.iter_modules is pkgutil.iter_modules


def test_a_module_that_needs_no_find_loader_stays(without_find_loader, monkeypatch):
    assert not patch_find_loader(ModuleType('fork'))
    monkeypatch.setattr(pkgutil, 'find_loader', lambda name: None, raising=False)
    assert not patch_find_loader(misc)
    assert misc.pkgutil is pkgutil


def test_distutils_is_that_of_setuptools():
    """setuptools' own hook is a .pth file, which is not read everywhere."""
    code = """
from importlib import util
find = util.find_spec
util.find_spec = lambda name: None if name == 'distutils' else find(name)  # Python 3.11 has it
from addp_mm.compat.removed_names import patch_distutils
print(patch_distutils(None))
from distutils import errors
print(errors.__file__)
"""
    done = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True)
    needed, file = done.stdout.split()
    assert needed == 'True'
    assert 'setuptools' in file
