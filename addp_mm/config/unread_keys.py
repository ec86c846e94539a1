# Copyright (c) addp_mm contributors. Apache-2.0.
"""Options at the top level of a config that nothing reads."""

import sys
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from mmengine.config import Config

from addp_mm.errors import ConfigError, first_few, suggest

_LETTERS = 4  # shorter texts are equal by chance
_MISSING = object()


def check_is_read(cfg: Config, key: str, read: set[str], names: Iterable[str]) -> None:
    """Refuse an option whose first name nothing reads.

    A config file is a Python file: other settings may be computed from a variable when the file is
    read, but not later. If no other setting has the variable's name or value, your own code may
    read it, so that the option is accepted with a warning.

    Args:
        cfg: The config.
        key: The key of the option.
        read: Names at the top level that the Runner reads.
        names: Names that an error may suggest, if the config does not have that of the key.

    Raises:
        ConfigError: Nothing reads the key. The message names the keys that hold the setting.
    """
    name, _, rest = key.partition('.')
    if name == 'data_preprocessor' and name in (cfg.get('model') or {}):
        raise ConfigError(f'--cfg-options {key}: the model has its own data_preprocessor. Write model.{key}')
    if name in read:
        return
    plain = cfg.to_dict()
    value = plain.get(name, _MISSING)
    found = list(_places({section: node for section, node in plain.items() if section in read}, name, value))
    keys = [f'{path}.{rest}'.rstrip('.') for path, inner in found if _has(inner, rest)]
    if value is _MISSING:
        remedy = f' at its top level. Write {first_few(keys, 4)}' if keys else suggest(name, names)
        raise ConfigError(f'--cfg-options {key}: the config has no {name!r}{remedy}')
    # code that the config imports may read a variable whose value is not used
    if found and not (plain.get('custom_imports') and all(inner != value for _, inner in found)):
        raise ConfigError(
            f'--cfg-options {key}: {name} is a variable of the config file, and nothing reads it after the file is '
            f'read. Write {first_few(keys or [path for path, _ in found], 4)}'
        )
    sys.stderr.write(
        f'warning: --cfg-options {key}: neither addp_mm nor mmengine reads {name}; the option has no effect unless '
        'your own code reads it\n'
    )


def _places(node: Any, name: str, value: Any, path: str = '') -> Iterator[tuple[str, Any]]:
    """Yield paths below ``node``, and their values, that have this name or value."""
    inside: Iterable[tuple[Any, Any]] = ()
    if isinstance(node, Mapping):
        inside = node.items()
    elif isinstance(node, list | tuple):
        inside = enumerate(node)
    for key, inner in inside:
        where = f'{path}.{key}'.lstrip('.')
        if key == name or _telling(value) and type(inner) is type(value) and inner == value:
            yield where, inner
        else:
            yield from _places(inner, name, value, where)


def _telling(value: Any) -> bool:
    """Whether an equal value elsewhere is probably this one."""
    if isinstance(value, float):
        return not value.is_integer()
    return isinstance(value, list | tuple | dict) and bool(value) or isinstance(value, str) and len(value) >= _LETTERS


def _has(node: Any, path: str) -> bool:
    """Whether there is something, or may be something, at ``path`` below ``node``."""
    *parents, last = path.split('.')
    for part in parents:
        if isinstance(node, list | tuple) and part.isdecimal() and int(part) < len(node):
            node = node[int(part)]
        elif isinstance(node, Mapping) and part in node:
            node = node[part]
        else:
            return False
    return not last or isinstance(node, Mapping | list | tuple)
