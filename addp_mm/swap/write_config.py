# Copyright (c) addp_mm contributors. Apache-2.0.
"""The config file of a swap: short, inherits from the original, and says why each line is there."""

from __future__ import annotations

import os
import textwrap
from collections.abc import Iterator
from pathlib import Path

from addp_mm.checkpoints.atomic_write import write_text
from addp_mm.config.reading import CONFIG_SUFFIXES
from addp_mm.config.shipped import SCHEME, config_path, shipped_root
from addp_mm.config.stock import is_stock_name, stock_name
from addp_mm.swap.plan import Change, SwapPlan
from addp_mm.swap.source_text import INDENT, source_of

_COMMENT_COLUMNS = 100


def config_text(plan: SwapPlan) -> str:
    """Source of the config of a plan. The same plan gives the same text.

    Args:
        plan: The plan. Its ``config`` becomes ``_base_``: a path must be relative to the folder of
            the new file, see :func:`base_name`.
    """
    head = f'{plan.config} with the backbone {plan.backbone}, written by addp swap'
    remarks = [*(f'Warning: {text}' for text in plan.warnings), *(f'Note: {text}' for text in plan.notes)]
    lines = [*_comment(head, 0), *(line for remark in remarks for line in _comment(remark, 0))]
    lines.append(f'_base_ = {_base(plan.config)}')
    tree: dict = {}
    for change in plan.changes:
        *parents, name = change.key.split('.')
        node = tree
        for parent in parents:
            node = node.setdefault(parent, {})
        node[name] = change
    return '\n'.join([*lines, *_section(tree, 0)]) + '\n'


def write_config(plan: SwapPlan, path: str | os.PathLike) -> None:
    """Write the config of a plan, atomically."""
    write_text(path, config_text(plan))


def base_name(config: str, out: str | os.PathLike) -> str:
    """Name of a config for ``_base_`` of the file ``out``.

    Args:
        config: A file, ``mmdet::NAME``, ``mmseg::NAME``, ``mmpretrain::NAME``, or the name of a
            shipped config.
        out: The file that inherits from it.

    Returns:
        A path relative to the folder of ``out``, or ``package::folder/name.py``.

    Raises:
        ConfigError: A package has no config of that name.
        ShippedFileError: This package ships no config of that name.
    """
    if is_stock_name(config):
        return stock_name(config)
    if config.startswith(SCHEME) or (Path(config).suffix not in CONFIG_SUFFIXES and not Path(config).exists()):
        path = Path(config_path(config)).relative_to(shipped_root() / 'configs')
        return f'{SCHEME}{path.as_posix()}'
    try:
        return Path(os.path.relpath(config, Path(out).parent)).as_posix()
    except ValueError:  # another drive of Windows
        return Path(config).absolute().as_posix()


def _base(config: str) -> str:
    if config.startswith(SCHEME):  # mmengine itself does not know these names
        return f"__import__('addp_mm').config_path({config.removeprefix(SCHEME)!r})"
    return repr(config)


def _section(tree: dict, level: int) -> Iterator[str]:
    """Yield the lines of changes by key; a dict that is not the value of a change is a parent."""
    margin, end = INDENT * level, ',' if level else ''
    reason = None
    for name, node in tree.items():
        equals = '=' if level else ' = '
        if isinstance(node, Change):
            value = {'_delete_': True, **node.value} if node.delete and isinstance(node.value, dict) else node.value
            start = f'{margin}{name}{equals}'
            if node.reason != reason:  # several values may share a reason
                yield from _comment(node.reason, level)
            reason = node.reason
            yield start + source_of(value, len(start) + len(end), level) + end
        else:
            reason = None
            yield f'{margin}{name}{equals}dict('
            yield from _section(node, level + 1)
            yield f'{margin}){end}'


def _comment(sentence: str, level: int) -> list[str]:
    margin = f'{INDENT * level}# '
    return textwrap.wrap(
        sentence,
        _COMMENT_COLUMNS,
        initial_indent=margin,
        subsequent_indent=margin,
        break_long_words=False,
        break_on_hyphens=False,
    )
