# Copyright (c) addp_mm contributors. Apache-2.0.
"""Settings of the parity tests."""

import pytest
import torch


@pytest.fixture(autouse=True, scope='module')
def without_onednn():
    """Without oneDNN: some of its convolutions round by more than the tolerance in two steps."""
    with torch.backends.mkldnn.flags(enabled=False):
        yield
