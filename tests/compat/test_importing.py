# Copyright (c) addp_mm contributors. Apache-2.0.
import subprocess
import sys

import pytest
import torch

from addp_mm.compat.importing import replace, replace_method, when_imported


@pytest.fixture
def package(tmp_path, monkeypatch):
    (tmp_path / 'shop_to_patch.py').write_text('def price():\n    return 1\n')
    (tmp_path / 'customer_of_shop.py').write_text('from shop_to_patch import price\n')
    monkeypatch.syspath_prepend(tmp_path)
    yield 'shop_to_patch'
    for name in ('shop_to_patch', 'customer_of_shop'):
        sys.modules.pop(name, None)


def test_a_callback_runs_after_the_import_and_once(package):
    calls = []
    callback = calls.append
    when_imported(package, callback)
    when_imported(package, callback)
    assert calls == []
    import shop_to_patch

    assert calls == [shop_to_patch]
    assert type(shop_to_patch.__loader__).__name__ == 'SourceFileLoader'


def test_a_callback_runs_now_for_an_imported_module(package):
    import shop_to_patch

    calls = []
    when_imported(package, calls.append)
    assert calls == [shop_to_patch]


def test_callbacks_compute_while_a_model_is_built_on_the_meta_device(package):
    devices = []

    def probe(module):
        devices.append(torch.zeros(1).device.type)

    with torch.device('meta'):
        when_imported(package, probe)
        import shop_to_patch  # noqa: F401

        when_imported(package, lambda module: probe(module))
        assert torch.zeros(1).is_meta
    assert devices == ['cpu', 'cpu']


def test_replace_reaches_names_imported_elsewhere(package):
    import customer_of_shop
    import shop_to_patch

    original = shop_to_patch.price
    replace(shop_to_patch, 'price', lambda old: lambda: old() + 1)
    assert shop_to_patch.price() == customer_of_shop.price() == 2
    assert shop_to_patch.price.__wrapped__ is original
    assert shop_to_patch.price.__name__ == 'price'


def test_replace_method():

    class Till:
        def total(self):
            return 1

    replace_method(Till, 'total', lambda old: lambda self: old(self) + 1)
    assert Till().total() == 2
    assert Till.total.__wrapped__(Till()) == 1


def test_import_of_addp_mm_is_cheap():
    heavy = ('torch', 'mmcv', 'mmdet', 'mmseg', 'mmpretrain', 'torchvision', 'timm')
    code = f'import sys, addp_mm; print([name for name in {heavy} if name in sys.modules])'
    out = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True, check=True).stdout
    assert out.strip() == '[]'


def test_missing_mmengine_is_reported_by_the_import():
    code = (
        'import sys, importlib.util as util; find = util.find_spec; '
        'util.find_spec = lambda name, *a: None if name == "mmengine" else find(name, *a); import addp_mm.registry'
    )
    run = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True)
    assert run.returncode != 0
    assert 'ImportError: addp_mm needs mmengine, which is not installed' in run.stderr


def test_missing_mmpretrain_is_reported_when_an_algorithm_is_imported():
    code = (
        'import sys\nsys.modules["mmpretrain"] = None\nfrom addp_mm.registry import MODELS\n'
        'assert MODELS.get("addp_mm.ADDPViT") is not None\nMODELS.get("addp_mm.ADDP")'
    )
    done = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True)
    assert done.returncode != 0
    assert 'need mmpretrain, which is not installed' in done.stderr
    assert "pip install 'addp_mm[openmmlab]'" in done.stderr


def test_install_is_idempotent():
    from addp_mm import compat
    from addp_mm.compat.importing import _CALLBACKS

    before = {name: list(callbacks) for name, callbacks in _CALLBACKS.items()}, len(sys.meta_path)
    compat.install()
    assert before == ({name: list(callbacks) for name, callbacks in _CALLBACKS.items()}, len(sys.meta_path))
