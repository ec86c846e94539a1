# Copyright (c) addp_mm contributors. Apache-2.0.
"""Values inside a config, by their dotted keys."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from mmengine.config import Config


def node_at(cfg: Any, key: str, default: Any = None) -> Any:
    """The value at a dotted key of a config.

    Args:
        cfg: A config, or a part of one.
        key: Names in dicts and positions in lists, such as ``'custom_hooks.0.interval'``.
        default: What is returned if there is no such key. Defaults to None.

    >>> node_at(dict(custom_hooks=[dict(interval=3)]), 'custom_hooks.0.interval')
    3
    """
    node = cfg
    for part in key.split('.'):
        if isinstance(node, Mapping | Config) and part in node:
            node = node[part]
        elif isinstance(node, list | tuple) and part.isdecimal() and int(part) < len(node):
            node = node[int(part)]
        else:
            return default
    return node


def nodes_below(node: Any, key: str = '') -> Iterator[tuple[str, Any]]:
    """Yield a value of a config and all values in it with their dotted keys, the outer ones first.

    Args:
        node: A config, or a part of one.
        key: Its own key. Defaults to ''.

    >>> list(nodes_below(dict(a=[1]), 'model'))
    [('model', {'a': [1]}), ('model.a', [1]), ('model.a.0', 1)]
    """
    yield key, node
    inside: Any = node.items() if isinstance(node, Mapping | Config) else ()
    if isinstance(node, list | tuple):
        inside = enumerate(node)
    for name, child in inside:
        yield from nodes_below(child, f'{key}.{name}' if key else str(name))
