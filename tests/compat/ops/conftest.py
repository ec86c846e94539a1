# Copyright (c) addp_mm contributors. Apache-2.0.
import importlib

import pytest
import torch
from helpers.watched_operators import WatchedOperators

from addp_mm.compat.extension_choice import calling, own_extension
from addp_mm.compat.mmcv_ext import install_mmcv_ext

install_mmcv_ext()


@pytest.fixture(scope='session')
def ext():
    """The extension under test, also if the installed mmcv has a compiled one."""
    return own_extension()


@pytest.fixture
def mmcv_ops(ext):
    """``mmcv.ops`` on the extension under test."""
    with calling(ext):
        yield importlib.import_module('mmcv.ops')


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
