# Copyright (c) addp_mm contributors. Apache-2.0.
"""Nothing swallows the error about the death of a worker."""

import gc

import pytest


@pytest.fixture(autouse=True)
def without_callbacks_of_the_garbage_collector():
    """torch raises the error in a signal handler: in hypothesis's callback it would be ignored."""
    callbacks = gc.callbacks[:]
    gc.callbacks.clear()
    yield
    gc.callbacks.extend(callbacks)
