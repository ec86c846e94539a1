# Copyright (c) addp_mm contributors. Apache-2.0.
import sys
from importlib.metadata import PackageNotFoundError
from types import ModuleType

import pytest

from addp_mm.compat import packages


def names():
    module = ModuleType('config_utils')
    module.MODULE2PACKAGE = {'mmseg': 'mmsegmentation', 'mmdet': 'mmdet', 'mmpose': 'mmpose'}
    return module


def test_fork_of_mmseg_is_found_by_its_import_name():
    module = names()
    packages.patch_package_names(module, {'onedl-mmsegmentation': '1.4.2'}.get)
    assert module.MODULE2PACKAGE == {'mmseg': 'mmseg', 'mmdet': 'mmdet', 'mmpose': 'mmpose'}


@pytest.mark.parametrize('installed', [{}, {'mmsegmentation': '1.2.2'}])
def test_originals_keep_their_name(installed):
    module = names()
    packages.patch_package_names(module, installed.get)
    assert module.MODULE2PACKAGE['mmseg'] == 'mmsegmentation'


def package_utils():
    module = ModuleType('package_utils')

    def is_installed(package):
        import pkg_resources

        return bool(pkg_resources.get_distribution(package))

    vars(module).update(is_installed=is_installed, get_installed_path=lambda package: '', package2module=lambda _: '')
    return module, is_installed


def test_lookup_without_pkg_resources(monkeypatch):
    import PIL

    module, original = package_utils()
    monkeypatch.setattr(packages, 'find_spec', _without_pkg_resources(packages.find_spec))
    monkeypatch.setitem(sys.modules, 'pkg_resources', None)
    with pytest.raises(ModuleNotFoundError):
        original('pillow')
    packages.patch_package_utils(module)
    assert module.is_installed('pillow')
    assert module.is_installed('PIL')
    assert not module.is_installed('no_such_package')
    assert module.get_installed_path('pillow') == module.get_installed_path('PIL') == PIL.__path__[0]
    assert module.package2module('pillow') == 'PIL'
    with pytest.raises(PackageNotFoundError):
        module.get_installed_path('no_such_package')


def test_lookup_with_pkg_resources_stays(monkeypatch):
    module, original = package_utils()
    find = packages.find_spec
    monkeypatch.setattr(packages, 'find_spec', lambda name: find('sys' if name == 'pkg_resources' else name))
    packages.patch_package_utils(module)
    assert module.is_installed is original


def test_lookup_that_does_not_use_pkg_resources_stays(monkeypatch):
    module, _ = package_utils()
    healthy = module.is_installed = lambda package: True
    monkeypatch.setattr(packages, 'find_spec', lambda name: None)
    packages.patch_package_utils(module)
    assert module.is_installed is healthy


def _without_pkg_resources(find):
    return lambda name: None if name == 'pkg_resources' else find(name)
