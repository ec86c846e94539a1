# Copyright (c) addp_mm contributors. Apache-2.0.
"""Numbers of iterations in a stage's config, written as formulas over ``max_iters``."""

from __future__ import annotations

import re
from typing import Any

from addp_mm.config.config_file import ConfigError

_FORMULA = re.compile(r'(?:(\d+(?:\.\d+)?)\s*([*/])\s*)?max_iters')
_WORD = re.compile(r'(?<![\w.])max_iters(?![\w.])')


def resolve_iterations(node: Any, max_iters: int, key: str = '') -> Any:
    """Replace the formulas over ``max_iters`` in a config by numbers.

    ``'0.05 * max_iters'`` and ``'max_iters'`` are numbers of iterations, at least 2 (a shorter
    warm-up never ends). ``'40 / max_iters'`` is a rate per iteration, at most 0.5.

    Args:
        node: Nested dicts and lists. They are not changed.
        max_iters: Iterations of the whole training.
        key: Key of ``node`` in its dict. Defaults to ''.

    Returns:
        A copy without shared dicts or lists.

    Raises:
        ConfigError: A string contains ``max_iters`` but is not one of these formulas.
    """
    if isinstance(node, dict):
        return {name: resolve_iterations(value, max_iters, name) for name, value in node.items()}
    if isinstance(node, (list, tuple)):
        return type(node)(resolve_iterations(value, max_iters) for value in node)
    if not isinstance(node, str) or not _WORD.search(node):
        return node
    if formula := _FORMULA.fullmatch(node):
        factor = float(formula[1] or 1)
        if formula[2] == '/':
            return min(0.5, factor / max_iters)
        # AdversarialStartHook needs watch > window
        return max(3 if key == 'watch' else 2, round(factor * max_iters))
    raise ConfigError(
        f"{key}={node!r} is not a known formula: write '0.05 * max_iters' for a number of "
        "iterations, '40 / max_iters' for a rate, or a plain number"
    )
