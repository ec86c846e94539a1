# Copyright (c) addp_mm contributors. Apache-2.0.
"""What a config that is data may hold, so that building from it runs no code of its author."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from addp_mm.config.nodes import nodes_below
from addp_mm.config.registered_types import PACKAGES, is_of, registered_types_only, registries
from addp_mm.config.type_names import type_name
from addp_mm.errors import ConfigError

_BY_NAME = ('type', 'constructor', 'runner_type', 'ema_type')
_SCOPES = ('default_scope', '_scope_')
# registered, but they evaluate text of the config as Python
_EVALUATING = ('RFSearchHook', 'CameraMotionCompensation')
# transforms that build classes of albumentations by their names, from these arguments
_OF_ALBUMENTATIONS = ('Albu', 'Albumentations')
_AUGMENTATIONS = ('transforms', 'bbox_params')
_ALBUMENTATIONS = 'albumentations'
_IN_PYTHON = 'To use it, inherit from this file in a config in Python, which may name it'


def check_data_config(values: Mapping, where: str) -> None:
    """Check that a config in JSON or YAML, or in a checkpoint, can run no code of its author.

    If it can run none, the registries of this process find registered classes only from then on,
    see :mod:`addp_mm.config.registered_types`. The modules of ``custom_imports`` are imported if
    they are in one of OpenMMLab's packages.

    Args:
        values: The config.
        where: What holds it, for the error.

    Raises:
        ConfigError: A type is not registered, a module is of another package, or a key is no name.
    """
    for fault in _faults(values):
        raise ConfigError(f'{where}: {fault}. {_IN_PYTHON}')
    with registered_types_only():
        _import_modules(values)
        _check_types(values, where)


def _check_types(values: Mapping, where: str) -> None:
    scope = values.get('default_scope') or 'mmengine'
    for key, kind, own_scope in _types(values, '', scope):
        name = kind.rpartition('.')[2]
        if name in _EVALUATING:
            raise ConfigError(f'{where}: {key}={kind} evaluates text as Python. {_IN_PYTHON}')
        if not _is_known(kind, own_scope):
            raise ConfigError(f'{where}: {key}={kind!r:.80} is not a registered class. {_IN_PYTHON}')


def _faults(values: Mapping) -> Iterator[str]:
    for key, node in nodes_below(values):
        if isinstance(node, Mapping):
            # mmengine writes keys into a config in Python between quotes
            bad = [name for name in node if isinstance(name, str) and re.search(r'[\'"\\\n\r]|^__', name)]
            if bad:
                yield f'the key {bad[0]!r:.60} in {key or "the config"} is not a plain name'
            if node.get('trust_remote_code'):
                yield f'{key}.trust_remote_code runs code of a model hub'
        name = key.rpartition('.')[2]
        if name in _SCOPES and node is not None and node not in PACKAGES:
            yield f'{key}={node!r:.60} is not one of {", ".join(PACKAGES)}'
        # mmpretrain evaluates it as Python
        if name == 'dtype' and isinstance(node, str) and not re.fullmatch(r'[\w.]+', node):
            yield f'{key}={node!r:.60} is not a data type'
    yield from (f'custom_imports: {module!r:.60} is of another package' for module in _foreign_modules(values))


def _modules(values: Mapping) -> list[Any]:
    imports = (values.get('custom_imports') or {}).get('imports') or []
    return [imports] if isinstance(imports, str) else list(imports)


def _foreign_modules(values: Mapping) -> list[Any]:
    return [module for module in _modules(values) if not isinstance(module, str) or not is_of(module, PACKAGES)]


def _import_modules(values: Mapping) -> None:
    from mmengine.utils import import_modules_from_strings

    if _modules(values):
        import_modules_from_strings(_modules(values), allow_failed_imports=False)


def _types(node: Any, key: str, scope: str) -> Iterator[tuple[str, str, str]]:
    """Key, name and scope of each class that is named in a config, also of augmentations."""
    if isinstance(node, Mapping):
        scope = scope if scope == _ALBUMENTATIONS else node.get('_scope_') or scope
        has_augmentations = type_name(node.get('type')) in _OF_ALBUMENTATIONS
        for name, child in node.items():
            inner = f'{key}.{name}' if key else str(name)
            if name in _BY_NAME and isinstance(child, str):
                yield inner, child, scope
            elif has_augmentations and name in _AUGMENTATIONS:
                yield from _types(child, inner, _ALBUMENTATIONS)
            else:
                yield from _types(child, inner, scope)
    elif isinstance(node, list | tuple):
        for index, child in enumerate(node):
            yield from _types(child, f'{key}.{index}', scope)


def _is_known(kind: str, scope: str) -> bool:
    if scope == _ALBUMENTATIONS:
        return _is_augmentation(kind)
    # the import of mmcv's operators registers its layers, which no registry imports
    return _is_registered(kind, scope) or _is_operator(kind) or _is_registered(kind, scope)


def _is_registered(kind: str, scope: str) -> bool:
    """Whether a registry of a scope, or of those above it, has the name."""
    for registry in registries(scope):
        try:
            if registry.get(kind) is not None:
                return True
        except RuntimeError:  # mmengine's words for a failed import
            continue
    return False


def _is_operator(kind: str) -> bool:
    """Whether a name or path is an operator of mmcv, which is looked up without a registry."""
    from mmcv import ops

    module, _, name = kind.rpartition('.')
    return name in ops.__all__ and module in ('', 'mmcv.ops', getattr(ops, name).__module__)


def _is_augmentation(kind: str) -> bool:
    """Whether a name is a class of albumentations. If that is not installed, it cannot be built."""
    try:
        import albumentations
    except ImportError:
        return kind.isidentifier()
    found = getattr(albumentations, kind, None)
    return isinstance(found, type) and is_of(found.__module__, (_ALBUMENTATIONS,))
