# Copyright (c) addp_mm contributors. Apache-2.0.
"""mmpretrain's multimodal models are left out only if transformers is too new for them."""

import os
import subprocess
import sys
from types import ModuleType

import pytest

from addp_mm.compat.multimodal import NEEDS, patch_multimodal


def dependency(found=True):
    module = ModuleType('dependency')
    module.WITH_MULTIMODAL = found
    return module


@pytest.fixture
def transformers(monkeypatch):
    """A package that has what the models import."""
    package = ModuleType('transformers')
    monkeypatch.setitem(sys.modules, 'transformers', package)
    for needs in NEEDS.values():
        module = ModuleType(needs.module)
        vars(module).update(dict.fromkeys(needs.names, object))
        setattr(package, needs.module.rpartition('.')[2], module)
        monkeypatch.setitem(sys.modules, needs.module, module)
    return package


@pytest.mark.parametrize(
    'installed, kept',
    [
        ({'mmpretrain': '1.2.0', 'transformers': '4.40.0'}, True),
        ({'mmpretrain': '1.2.0', 'transformers': '4.57.1'}, False),
        ({'mmpretrain': '1.2.0', 'transformers': '5.24.0'}, False),
        ({'onedl-mmpretrain': '1.3.6', 'transformers': '4.57.1'}, True),
        ({'onedl-mmpretrain': '1.3.6', 'transformers': '5.24.0'}, False),
        ({'transformers': '5.24.0'}, True),
    ],
)
def test_versions(transformers, installed, kept):
    module = dependency()
    assert patch_multimodal(module, installed.get) is not kept
    assert module.WITH_MULTIMODAL is kept


def test_a_name_that_is_missing_and_a_package_that_does_not_load(transformers, monkeypatch):
    installed = {'mmpretrain': '1.2.0', 'transformers': '4.56.0'}
    del transformers.modeling_utils.apply_chunking_to_forward
    assert patch_multimodal(dependency(), installed.get)
    monkeypatch.setitem(sys.modules, 'transformers.modeling_utils', None)
    assert patch_multimodal(dependency(), installed.get)


def test_without_transformers_nothing_changes():
    assert not patch_multimodal(dependency(found=False), {'mmpretrain': '1.2.0'}.get)


@pytest.mark.slow
def test_mmpretrain_is_imported_beside_a_current_transformers(tmp_path):
    """A stand-in for transformers 5, which has none of the names."""
    (tmp_path / 'transformers').mkdir()
    (tmp_path / 'transformers/__init__.py').write_text('__version__ = "5.24.0"\n')
    (tmp_path / 'transformers-5.24.0.dist-info').mkdir()
    (tmp_path / 'transformers-5.24.0.dist-info/METADATA').write_text('Name: transformers\nVersion: 5.24.0\n')
    path = os.pathsep.join([str(tmp_path), os.environ['PYTHONPATH']])
    code = 'import addp_mm, mmpretrain.models; print(mmpretrain.models.ImageClassifier.__name__)'
    done = subprocess.run(
        [sys.executable, '-W', 'ignore', '-c', code],
        env={**os.environ, 'PYTHONPATH': path},
        capture_output=True,
        text=True,
    )
    assert done.stdout == 'ImageClassifier\n', done.stderr
