# Copyright (c) addp_mm contributors. Apache-2.0.
import importlib
import pkgutil
import sys
from types import ModuleType

import pytest
import torch
from helpers.watched_operators import WatchedOperators

from addp_mm.compat.mmcv_ext import EXT_NAME, MMCVExtFinder, install_mmcv_ext

install_mmcv_ext()


@pytest.fixture(scope='session')
def ext():
    """The extension under test, also if the installed mmcv has a compiled one."""
    module = ModuleType(EXT_NAME)
    MMCVExtFinder().exec_module(module)
    return module


@pytest.fixture
def mmcv_ops(monkeypatch, ext):
    """``mmcv.ops`` on the extension under test."""
    ops = importlib.import_module('mmcv.ops')
    for info in pkgutil.iter_modules(ops.__path__, 'mmcv.ops.'):
        module = sys.modules.get(info.name)
        if hasattr(module, 'ext_module'):
            monkeypatch.setattr(module, 'ext_module', ext)
    return ops


@pytest.fixture
def watched(ext, mmcv_ops, monkeypatch):
    """The operators under test, which note that they were called."""
    return WatchedOperators(ext, monkeypatch)


@pytest.fixture(
    params=['cpu', pytest.param('cuda', marks=pytest.mark.skipif(not torch.cuda.is_available(), reason='needs CUDA'))]
)
def device(request):
    return request.param


@pytest.fixture
def generator():
    return torch.Generator().manual_seed(0)
