# Copyright (c) addp_mm contributors. Apache-2.0.
"""``addp doctor --ops``: which of mmcv's operators this installation has, and who provides them."""

from __future__ import annotations

import ast
import importlib
import re
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from addp_mm.compat.versions import INSTALL_MMCV
from addp_mm.errors import UserError

COMPILED, OURS, MISSING = 'compiled', 'addp_mm', '-'
_PASS = re.compile(r'_(forward|backward).*$')  # sync_bn_forward_mean, deform_conv_backward_input
# their gradient is the same function
_OWN_GRADIENT = ('bias_act', 'filtered_lrelu', 'filtered_lrelu_act_', 'fused_bias_leakyrelu', 'upfirdn2d')


@dataclass(frozen=True)
class Operator:
    """An operator of mmcv.

    Attributes:
        name: Its name up to ``_forward`` or ``_backward``.
        module: The module of ``mmcv.ops`` that calls it.
        provider: :data:`COMPILED`, :data:`OURS` or :data:`MISSING`.
        functions: Names in ``mmcv._ext``.
        missing: Those of them that raise an error when they are called.
    """

    name: str
    module: str
    provider: str
    functions: tuple[str, ...]
    missing: tuple[str, ...]

    @property
    def passes(self) -> str:
        """What can be computed: 'forward', 'forward, backward', or '-' for nothing."""
        if self.provider == MISSING:
            return MISSING
        provided = [name for name in self.functions if name not in self.missing]
        has_backward = self.name in _OWN_GRADIENT or any('backward' in name for name in provided)
        return 'forward, backward' if has_backward else 'forward'


def operators() -> list[Operator]:
    """The operators that ``mmcv.ops`` asks for, by name.

    Raises:
        UserError: mmcv is not installed, or its operators do not load.
    """
    spec = find_spec('mmcv')
    if spec is None or not spec.submodule_search_locations:
        raise UserError(f'mmcv is not installed: {INSTALL_MMCV}')
    try:
        extension = importlib.import_module('mmcv._ext')
    except ImportError as error:
        raise UserError(f"mmcv's operators do not load: {error}. addp doctor says why") from error
    found: dict[tuple[str, str], list[str]] = {}
    for path in sorted((Path(spec.submodule_search_locations[0]) / 'ops').glob('*.py')):
        for function in _asked_for(path):
            if not function.startswith('get_compil'):
                found.setdefault((_PASS.sub('', function), path.stem), []).append(function)
    return [_operator(name, module, functions, extension) for (name, module), functions in sorted(found.items())]


def _operator(name: str, module: str, functions: list[str], extension: Any) -> Operator:
    ours = extension.__spec__.origin == 'addp_mm.compat.ops'
    absent = tuple(function for function in functions if function not in vars(extension))
    provider = MISSING if len(absent) == len(functions) else OURS if ours else COMPILED
    return Operator(name, module, provider, tuple(functions), absent)


def _asked_for(path: Path) -> Iterator[str]:
    """Names in the calls ``load_ext('_ext', [names])`` of a file."""
    for node in ast.walk(ast.parse(path.read_text(encoding='utf-8'))):
        if isinstance(node, ast.Call) and len(node.args) > 1:
            called = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, 'id', '')
            if called == 'load_ext':
                yield from ast.literal_eval(node.args[1])


def table(found: list[Operator]) -> list[list[str]]:
    """Rows of text: a header, and one row for each operator."""
    rows = [[one.name, one.provider, one.passes, f'mmcv.ops.{one.module}'] for one in found]
    return [['operator', 'provided by', 'passes', 'called by'], *rows]
