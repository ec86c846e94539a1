# Copyright (c) addp_mm contributors. Apache-2.0.
"""Keep configs that are data from naming anything but registered classes.

mmengine takes a ``type`` that is in no registry as the path of any Python object, and calls it:
``type='os.system'`` runs a command. A config in Python can do so anyway. After
:func:`registered_types_only`, registries of this process only find what is registered.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from types import ModuleType
from typing import Any

#: Packages whose modules may be imported to find a class.
PACKAGES = ('addp_mm', 'mmengine', 'mmcv', 'mmdet', 'mmseg', 'mmpretrain')
_TORCH = ('torch',)
_WITH_CLASSES = (*PACKAGES, *_TORCH)
_is_limited = False


@contextmanager
def registered_types_only() -> Iterator[None]:
    """Limit the registries of this process to registered classes and functions.

    They stay so afterwards, unless the code inside raises an error: the config is then refused, and
    nothing is built from it.
    """
    global _is_limited
    before, _is_limited = _is_limited, True
    try:
        yield
    except BaseException:
        _is_limited = before
        raise


def reason_not_found(kind: str) -> str:
    """``'; …'`` if a type may only be unknown because the registries are limited; else ''."""
    if not _is_limited or '.' not in kind:
        return ''
    return (
        '; this process has read a config in JSON or YAML, or one in a checkpoint, and from then on finds registered '
        'types only. Register the class and use its registered name, or use another process'
    )


def guard_registries(module: Any) -> None:
    """Make the registries obey :func:`registered_types_only`.

    Args:
        module: ``mmengine.registry.registry``.
    """

    def guarded_import(name: str, package: str | None = None) -> ModuleType:
        if _is_limited and not is_of(name, _WITH_CLASSES):
            raise ImportError(f'{name} is not one of {", ".join(PACKAGES)}')
        return import_module(name, package)

    original = module.get_object_from_string

    def get_object_from_string(obj_name: str) -> Any:
        if not _is_limited:
            return original(obj_name)
        if '.' not in obj_name or not is_of(obj_name, _WITH_CLASSES):
            return None
        found = original(obj_name)
        return found if _is_layer(found) or any(found is registered for registered in _registered()) else None

    module.import_module = guarded_import
    module.get_object_from_string = get_object_from_string


def _is_layer(found: Any) -> bool:
    """Whether an object is a layer or optimizer of torch, which configs name by their paths."""
    from torch import nn, optim

    return (
        isinstance(found, type) and issubclass(found, nn.Module | optim.Optimizer) and is_of(found.__module__, _TORCH)
    )


def is_of(name: str, packages: tuple[str, ...]) -> bool:
    """Whether a dotted name is a package or inside one of them."""
    return name.partition('.')[0] in packages


def registries(scope: str) -> list[Any]:
    """The registries in which a package's names are looked up.

    Args:
        scope: One of :data:`PACKAGES`.

    Returns:
        For each of mmengine's registries that of the package, or itself if the package has none,
        and the package's own ones. Those of models and data are first.
    """
    from mmengine import registry as roots

    first = ('MODELS', 'TRANSFORMS', 'DATASETS', 'METRICS', 'HOOKS')
    found = {id(one): one for name in (*first, *vars(roots)) for one in _in_module(roots, name)}
    own = import_module('mmengine.registry' if scope in ('mmengine', 'mmcv') else f'{scope}.registry')
    others = {id(one): one for name in vars(own) for one in _in_module(own, name) if one.parent is None}
    return [one.children.get(scope, one) for one in {**found, **others}.values()]


def _in_module(module: ModuleType, name: str) -> list[Any]:
    from mmengine.registry import Registry

    value = getattr(module, name)
    return [value] if isinstance(value, Registry) else []


def _registered() -> Iterator[Any]:
    """All registered classes and functions."""
    loaded = [name for name in PACKAGES if f'{name}.registry' in sys.modules]
    waiting = [one for scope in loaded for one in registries(scope)]
    while waiting:
        registry = waiting.pop()
        yield from registry.module_dict.values()
        waiting += registry.children.values()
