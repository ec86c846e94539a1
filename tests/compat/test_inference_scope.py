# Copyright (c) addp_mm contributors. Apache-2.0.
"""``inference_detector`` and ``inference_model`` run in the scope of their model's config."""

import sys
from types import ModuleType, SimpleNamespace

import pytest
from mmengine.registry import DefaultScope

import addp_mm  # noqa: F401
from addp_mm.compat.inferencer_scope import patch_inference_scope


@pytest.mark.parametrize('package, name', [('mmdet', 'inference_detector'), ('mmseg', 'inference_model')])
def test_also_where_the_function_was_imported_before_addp_mm(package, name, monkeypatch):
    inference, notebook = ModuleType(f'{package}.apis.inference'), ModuleType('notebook_to_patch')

    def infer(model, imgs):
        return DefaultScope.get_current_instance().scope_name, imgs

    for module in (inference, notebook):
        setattr(module, name, infer)
    monkeypatch.setitem(sys.modules, notebook.__name__, notebook)
    patch_inference_scope(inference)
    with DefaultScope.overwrite_default_scope('other'):
        for cfg, scope in ((dict(), package), (dict(default_scope='own'), 'own'), (dict(default_scope=None), 'other')):
            for module in (inference, notebook):
                assert getattr(module, name)(SimpleNamespace(cfg=cfg), imgs=1) == (scope, 1)
        assert DefaultScope.get_current_instance().scope_name == 'other'
