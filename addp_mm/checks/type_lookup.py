# Copyright (c) addp_mm contributors. Apache-2.0.
"""Find the class of a config's ``type``."""

import sys
from typing import Any

from mmengine.registry import Registry

from addp_mm.config.type_names import type_name


def find_type(kind: str | type | None, registry: Registry, scope: str | None = None) -> Any:
    """Find the class or function of a ``type``.

    Args:
        kind: The ``type`` of a config: a name, or the class itself.
        registry: Root registry that builds from the config.
        scope: Package in which names without a package are looked up. Defaults to None: the default
            scope of the run.

    Returns:
        The class or function; None if it is not registered.
    """
    if not isinstance(kind, str):
        return kind
    if not kind:
        return None  # mmengine raises an error of its own
    with registry.switch_scope_and_registry(scope) as scoped:
        return scoped.get(kind)


def is_kind(kind: str | type | None, registry: Registry, module: str, *names: str, keeping: str = '') -> bool:
    """Whether a ``type`` is one of the classes of a module, or a subclass.

    Args:
        kind: The ``type`` of a config.
        registry: Root registry that builds from the config.
        module: Module of the classes, such as 'mmdet.datasets'. It is not imported, which would
            take seconds: if it is not imported yet, no subclass of its classes exists.
        *names: Names of the classes.
        keeping: A method that a subclass must not override. Defaults to '': any.

    Returns:
        Whether it is. If the name is not registered in the default scope, the names are compared.
    """
    found = find_type(kind, registry)
    if not isinstance(found, type):
        return type_name(kind) in names
    bases = [getattr(sys.modules.get(module), name, None) for name in names]
    return any(
        base is not None
        and issubclass(found, base)
        and (not keeping or getattr(found, keeping) is getattr(base, keeping))
        for base in bases
    )
