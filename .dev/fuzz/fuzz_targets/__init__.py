# Copyright (c) addp_mm contributors. Apache-2.0.
"""Entry points that read a stranger's bytes, for the fuzzer and the test of the kept inputs."""

from __future__ import annotations

import importlib

from fuzz_targets.names import PLACES
from fuzz_targets.target import Target, attempt


def load(name: str) -> Target:
    """Import a target.

    Args:
        name: One of :data:`~fuzz_targets.names.PLACES`.
    """
    module, attribute = PLACES[name]
    return getattr(importlib.import_module(f'fuzz_targets.{module}'), attribute)


__all__ = ['PLACES', 'Target', 'attempt', 'load']
