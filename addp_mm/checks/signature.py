# Copyright (c) addp_mm contributors. Apache-2.0.
"""Read the keyword arguments of a registered class or function from its signatures."""

import functools
import inspect
from collections.abc import Callable
from typing import NamedTuple


class Arguments(NamedTuple):
    """Keyword arguments of a class or function.

    Attributes:
        names: Names of the known arguments.
        open_ended: Whether there may be others.
    """

    names: frozenset[str]
    open_ended: bool


@functools.cache
def accepted_arguments(target: Callable) -> Arguments:
    """Keyword arguments of a class or a function.

    A class with ``**kwargs`` may take any argument; those of its base classes are known. The
    classes of addp_mm pass ``**kwargs`` to their base class, so that its signature decides.

    Args:
        target: The registered class or function.

    Returns:
        The arguments. They are open-ended if the signature cannot be read.
    """
    names: set[str] = set()
    open_ended = False
    for function, module in constructors(target):
        try:
            parameters = inspect.signature(function).parameters.values()
        except (TypeError, ValueError):
            return Arguments(frozenset(names), True)
        names |= {p.name for p in parameters if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)}
        if not any(p.kind is p.VAR_KEYWORD for p in parameters):
            break
        open_ended = open_ended or not inspect.isclass(target) or not module.startswith('addp_mm.')
    return Arguments(frozenset(names - {'self'}), open_ended)


def constructors(target: Callable) -> list[tuple[Callable, str]]:
    """A function, or the constructors of a class and its bases, each with its module.

    Args:
        target: The class or function.
    """
    if not inspect.isclass(target):
        return [(target, getattr(target, '__module__', ''))]
    return [
        (vars(base)['__init__'], base.__module__)
        for base in target.__mro__
        if base is not object and '__init__' in vars(base)
    ]
