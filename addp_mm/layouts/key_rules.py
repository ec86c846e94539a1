# Copyright (c) addp_mm contributors. Apache-2.0.
"""Rename the keys of a state dict by rules. Every key must be used, or listed as unused."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TypeVar

from torch import Tensor

from addp_mm.errors import first_few

Change = Callable[[Tensor], Tensor]
#: A pattern for the whole key, the new name (with groups of the pattern), and optionally a function
#: that changes the tensor.
Rule = tuple[str, str] | tuple[str, str, Change]
_Value = TypeVar('_Value')

#: The two tensors of most layers.
WB = r'(weight|bias)'
#: All tensors of a block of a published ViT.
VIT_BLOCK = r'(\d+\.(?:norm1|norm2|attn\.qkv|attn\.proj|mlp\.fc1|mlp\.fc2)\.(?:weight|bias))'


def translate(
    state_dict: Mapping[str, Tensor], rules: Sequence[Rule], unused: Sequence[str], name: str
) -> dict[str, Tensor]:
    """Rename tensors by rules. The result is contiguous and in float32.

    Args:
        state_dict: Tensors by name; it is not changed.
        rules: The first rule whose pattern matches a key is applied.
        unused: Patterns for whole keys that are left out.
        name: Name of the layout in the error.

    Returns:
        A new state dict.

    Raises:
        ValueError: A key is neither used nor listed as unused. The message names it.
    """
    converted, unknown = {}, []
    for key, value in state_dict.items():
        if any(re.fullmatch(pattern, key) for pattern in unused):
            continue
        renamed = rename(key, rules)
        if renamed is None:
            unknown.append(key)
        else:
            new, change = renamed
            converted[new] = (change(value) if change else value).float().contiguous()
    if unknown:
        raise ValueError(
            f'{len(unknown)} keys of the checkpoint are unknown in the layout of {name}: {first_few(unknown)}. '
            'Is the file of this kind? addp convert --help lists the kinds'
        )
    return converted


def rename(key: str, rules: Iterable[Rule]) -> tuple[str, Change | None] | None:
    """The new name of a key and the change of its tensor, if any; None if no rule matches."""
    for pattern, replacement, *change in rules:
        match = re.fullmatch(pattern, key)
        if match:
            return match.expand(replacement), change[0] if change else None
    return None


def prefixed(rules: Iterable[Rule], old: str, new: str) -> tuple[Rule, ...]:
    """The same rules for keys that start with ``old`` and new names that start with ``new``."""
    return tuple((re.escape(old) + rule[0], new + rule[1], *rule[2:]) for rule in rules)  # type: ignore[misc]


def dotted(prefix: str | None) -> str:
    """A prefix with its dot: ``backbone`` becomes ``backbone.``; None and '' become ''."""
    return f'{prefix.rstrip(".")}.' if prefix else ''


def without_prefix(state_dict: Mapping[str, _Value], prefix: str) -> dict[str, _Value]:
    """The values whose keys start with ``prefix``; it is removed from their names."""
    return {key[len(prefix) :]: value for key, value in state_dict.items() if key.startswith(prefix)}


def count(keys: Iterable[str], pattern: str) -> int:
    """Number of different indices in the pattern's group, at the start of the keys."""
    return len({match[1] for match in map(re.compile(pattern).match, keys) if match})


def require(state_dict: Mapping[str, Tensor], names: Iterable[str], what: str) -> None:
    """Check that tensors exist.

    Raises:
        ValueError: Tensors are missing. The message names them.
    """
    missing = [name for name in names if name not in state_dict]
    if missing:
        raise ValueError(
            f'not {what}: {first_few(missing)} missing. Is the file complete, and of this kind? '
            'addp convert --help lists the kinds'
        )
