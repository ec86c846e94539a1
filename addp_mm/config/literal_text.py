# Copyright (c) addp_mm contributors. Apache-2.0.
"""Read the text of a config that a checkpoint or a work dir holds, without running it."""

from __future__ import annotations

import ast
import math
from typing import Any

from addp_mm.errors import ConfigError

_NAMES = {'inf': math.inf, 'nan': math.nan}


def literal_config(text: str, where: str) -> dict[str, Any]:
    """Values of a config text that only assigns data.

    mmengine writes such a text for each config: ``name = value``, with lists, tuples, dicts and
    calls of ``dict``. A config file can be any program; only its text in a file is run.

    Args:
        text: Python source.
        where: What holds the text, for the error.

    Returns:
        Value by name.

    Raises:
        ConfigError: The text does anything but assign data.
    """
    try:
        statements = ast.parse(text).body
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        raise ConfigError(f'{where} is not the text of a config: {error}') from error
    try:
        return _values(statements, where)
    except (TypeError, RecursionError) as error:  # a list as a key; very many signs
        raise ConfigError(f'{where} is refused: {error}') from error


def _values(statements: list[ast.stmt], where: str) -> dict[str, Any]:
    values = {}
    for statement in statements:
        target = statement.targets[0] if isinstance(statement, ast.Assign) else None
        if not isinstance(target, ast.Name) or not isinstance(statement, ast.Assign) or len(statement.targets) > 1:
            raise _refused(statement, where)
        values[target.id] = _value(statement.value, where)
    return values


def _value(node: ast.expr, where: str) -> Any:
    if isinstance(node, ast.Constant):
        return node.value
    if isinstance(node, ast.List | ast.Tuple | ast.Set):
        kind = {ast.List: list, ast.Tuple: tuple, ast.Set: set}[type(node)]
        return kind(_value(item, where) for item in node.elts)
    if isinstance(node, ast.Dict) and None not in node.keys:
        pairs = zip(node.keys, node.values, strict=True)
        return {_value(key, where): _value(item, where) for key, item in pairs if key}
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == 'dict':
        return _dict(node, where)
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub):
        number = _value(node.operand, where)
        if type(number) in (int, float):
            return -number
    if isinstance(node, ast.Name) and node.id in _NAMES:
        return _NAMES[node.id]
    raise _refused(node, where)


def _dict(call: ast.Call, where: str) -> dict:
    """``dict(a=1)``, or ``dict({'a': 1})``, which mmengine writes for keys that are no names."""
    first = _value(call.args[0], where) if call.args else {}
    if len(call.args) > 1 or not isinstance(first, dict) or any(keyword.arg is None for keyword in call.keywords):
        raise _refused(call, where)
    return {**first, **{str(keyword.arg): _value(keyword.value, where) for keyword in call.keywords}}


def _refused(node: ast.stmt | ast.expr, where: str) -> ConfigError:
    return ConfigError(
        f'{where} is refused: line {node.lineno} of the config in it is {ast.unparse(node)[:60]!r}, which is not '
        'data. Nothing of it was run. Give the config file'
    )
