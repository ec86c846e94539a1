# Copyright (c) addp_mm contributors. Apache-2.0.
"""Which keyword arguments a registered class or function takes, read from its source without building it."""

import ast
import functools
import inspect
import textwrap
from typing import NamedTuple


def _passes_to_super(function, kwargs_name: str) -> bool:
    """Whether ``**kwargs`` of an ``__init__`` is used once, as ``super().__init__(…, **kwargs)``."""
    try:
        tree = ast.parse(textwrap.dedent(inspect.getsource(function)))
    except (OSError, TypeError, SyntaxError):
        return False
    handed_on = 0
    for node in ast.walk(tree):
        if (
            isinstance(node, ast.Call)
            and isinstance(node.func, ast.Attribute)
            and node.func.attr == '__init__'
            and isinstance(node.func.value, ast.Call)
            and getattr(node.func.value.func, 'id', '') == 'super'
        ):
            handed_on += sum(k.arg is None and getattr(k.value, 'id', '') == kwargs_name for k in node.keywords)
    uses = sum(isinstance(node, ast.Name) and node.id == kwargs_name for node in ast.walk(tree))
    return handed_on == 1 and uses == 1


def _split(function) -> tuple[set[str], str | None]:
    parameters = list(inspect.signature(function).parameters.values())
    names = {p.name for p in parameters if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)}
    open_ended = next((p.name for p in parameters if p.kind is p.VAR_KEYWORD), None)
    return names, open_ended


class Arguments(NamedTuple):
    """Names that are known, and whether others may be taken as well."""

    names: frozenset[str]
    open_ended: bool


@functools.cache
def accepted_arguments(target) -> Arguments:
    """Keyword arguments of a class (also through ``super().__init__(**kwargs)``) or of a function.

    Args:
        target: The registered class or function.

    Returns:
        Arguments: The names that can be read; open-ended where ``**kwargs`` goes anywhere but to
        the base class.
    """
    if not inspect.isclass(target):
        names, open_ended = _split(target) if callable(target) else (set(), 'any')
        return Arguments(frozenset(names), open_ended is not None)
    accepted: set[str] = set()
    for cls in target.__mro__:
        if cls is object or '__init__' not in vars(cls):
            continue
        try:
            names, open_ended = _split(cls.__init__)
        except (TypeError, ValueError):
            break
        accepted |= names - {'self'}
        if open_ended is None:
            return Arguments(frozenset(accepted), False)
        if not _passes_to_super(cls.__init__, open_ended):
            break
    return Arguments(frozenset(accepted), True)
