# Copyright (c) addp_mm contributors. Apache-2.0.
import pytest
import torch


@pytest.fixture(autouse=True, scope='module')
def without_onednn():
    """oneDNN picks its convolutions by processor and version; some round by more than the tolerance in two steps."""
    with torch.backends.mkldnn.flags(enabled=False):
        yield
