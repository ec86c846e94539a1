# Copyright (c) addp_mm contributors. Apache-2.0.
"""Choose few and short inputs that reach the same lines of the package as many."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from pathlib import Path
from types import FrameType
from typing import Any

import addp_mm
from fuzz_targets.target import Target, attempt

_PACKAGE = str(Path(addp_mm.__file__).parent)
_LONGEST = 1500  # bytes of an input
_MOST = 16_000  # bytes of all inputs


def minimise(target: Target, inputs: Iterable[bytes]) -> list[bytes]:
    """Choose inputs.

    Args:
        target: The target.
        inputs: The inputs.

    Returns:
        Those of at most 1500 bytes that reach a line, or an outcome after it, which neither the
        seeds nor shorter inputs reach; at most 16 KB together.
    """
    reached: set[Any] = set()
    for seed in target.seeds():
        reached |= lines_of(target, seed)
    chosen, size = [], 0
    for content in sorted(set(inputs), key=lambda one: (len(one), one)):
        if len(content) > _LONGEST or size + len(content) > _MOST:
            break
        found = lines_of(target, content)
        if not found <= reached:
            reached |= found
            size += len(content)
            chosen.append(content)
    return chosen


def lines_of(target: Target, content: bytes) -> set[Any]:
    """The lines of the package that an input reaches, and its outcome."""
    found: set[Any] = set()

    def trace(frame: FrameType, event: str, _: Any) -> Any:
        if not frame.f_code.co_filename.startswith(_PACKAGE):
            return None
        if event == 'line':
            found.add((frame.f_code.co_filename, frame.f_lineno))
        return trace

    sys.settrace(trace)
    try:
        outcome = attempt(target, content)
    except Exception as error:  # a finding
        outcome = f'{type(error).__name__}: {error}'
    finally:
        sys.settrace(None)
    return {*found, outcome}
