# Copyright (c) addp_mm contributors. Apache-2.0.
"""Which types of values an argument takes, from the signature of its class."""

import inspect
import types
import typing
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from mmengine.config import Config

from addp_mm.checks.config_classes import class_at
from addp_mm.checks.signature import constructors
from addp_mm.config.options import WORDS_FOR_NUMBERS, Kinds

_SEQUENCES = ('Sequence', 'Iterable', 'Collection', 'MutableSequence')
_NOT_IN_A_CONFIG = (torch.Tensor, torch.nn.Module, torch.Generator, np.ndarray)


def argument_kinds(cfg: Config, key: str) -> Kinds | None:
    """Types that the argument at a key takes.

    Args:
        cfg: The config, with the ``default_scope`` in which its classes are looked up.
        key: A key such as ``'model.backbone.patch_size'``.

    Returns:
        Names of types, as :data:`addp_mm.config.options.Kinds` describes; None if the signature
        does not say.
    """
    from mmengine.runner import Runner

    target = class_at(cfg, key) if '.' in key else Runner
    name = key.rpartition('.')[2]
    for function, _ in constructors(target) if callable(target) else ():
        try:
            found = inspect.signature(function).parameters.get(name)
        except (TypeError, ValueError):
            return None
        if found is not None:
            return _kinds(found, function)
    return None


def _kinds(argument: inspect.Parameter, function: Callable) -> Kinds | None:
    annotation = argument.annotation
    if isinstance(annotation, str):
        try:
            annotation = typing.get_type_hints(function)[argument.name]
        except Exception:  # the names in an annotation need not exist at run time
            return None
    default = argument.default
    if annotation is not argument.empty:
        return frozenset(_names(annotation) | ({'NoneType'} if default is None else set()))
    if isinstance(default, str):
        return None if default in WORDS_FOR_NUMBERS else frozenset({'str', 'list'})
    is_number = isinstance(default, int | float) and not isinstance(default, bool)
    return frozenset({'int', 'float'}) if is_number else None


def _names(annotation: Any) -> set[str]:
    origin = typing.get_origin(annotation)
    if origin in (typing.Union, types.UnionType):
        return {name for one in typing.get_args(annotation) for name in _names(one)}
    if origin is typing.Literal:
        return {type(one).__name__ for one in typing.get_args(annotation)}
    kind = origin or annotation
    if kind is None or kind is type(None):
        return {'NoneType'}
    if kind in (str, bool, int, float):
        return {kind.__name__}
    if not isinstance(kind, type):
        return {'any'}
    if issubclass(kind, _NOT_IN_A_CONFIG):
        return set()
    if issubclass(kind, dict):
        return {'dict'}
    sequence = kind in (list, tuple) or kind.__module__ == 'collections.abc' and kind.__name__ in _SEQUENCES
    return {'list'} if sequence else {'any'}
