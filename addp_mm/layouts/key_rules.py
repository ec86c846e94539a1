# Copyright (c) addp_mm contributors. Apache-2.0.
"""Translating the keys of a state dict by rules, with none left unaccounted for."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence

from torch import Tensor

from addp_mm.errors import first_few

#: A pattern for the whole key, the new name (with groups of the pattern), and what happens to the
# tensor, if anything.
Rule = tuple[str, str] | tuple[str, str, Callable[[Tensor], Tensor]]

#: The two tensors of most layers.
WB = r'(weight|bias)'
#: All tensors of a block of a published ViT.
VIT_BLOCK = r'(\d+\.(?:norm1|norm2|attn\.qkv|attn\.proj|mlp\.fc1|mlp\.fc2)\.(?:weight|bias))'


def translate(
    state_dict: Mapping[str, Tensor], rules: Sequence[Rule], unused: Sequence[str], what: str
) -> dict[str, Tensor]:
    """The tensors that rules name, under their new names, as contiguous float32.

    Args:
        state_dict: Left as it is.
        rules: The first that fits a key decides.
        unused: Patterns for whole keys that are known and not taken.
        what: Whose layout this is, for the error.

    Returns:
        A new state dict.

    Raises:
        ValueError: If a key is neither used nor known as unused; names it.
    """
    converted, unknown = {}, []
    for key, value in state_dict.items():
        if matches_any(key, unused):
            continue
        name, change = rename(key, rules)
        if name is None:
            unknown.append(key)
        else:
            converted[name] = change(value).float().contiguous()
    refuse_unknown(unknown, what)
    return converted


def rename(key: str, rules: Iterable[Rule]) -> tuple[str | None, Callable[[Tensor], Tensor]]:
    """New name of a key, None without a rule for it, and what happens to its tensor."""
    for pattern, replacement, *change in rules:
        match = re.fullmatch(pattern, key)
        if match:
            return match.expand(replacement), (change[0] if change else _as_it_is)
    return None, _as_it_is


def _as_it_is(value: Tensor) -> Tensor:
    return value


def matches_any(key: str, patterns: Iterable[str]) -> bool:
    """Whether one of the patterns fits the whole key."""
    return any(re.fullmatch(pattern, key) for pattern in patterns)


def refuse_unknown(unknown: Sequence[str], what: str) -> None:
    """Raises ValueError that names the keys, if there are any."""
    if unknown:
        raise ValueError(
            f'{len(unknown)} keys of the checkpoint are neither used nor known as unused in {what}: '
            f'{first_few(unknown, count=20)}'
        )


def prefixed(rules: Iterable[Rule], old: str, new: str) -> tuple[Rule, ...]:
    """The rules for keys that start with ``old``, giving names that start with ``new``."""
    return tuple((re.escape(old) + pattern, new + replacement, *change) for pattern, replacement, *change in rules)


def dotted(prefix: str | None) -> str:
    """A prefix as keys have it: ``backbone`` is ``backbone.``; nothing stays nothing."""
    return f'{prefix.rstrip(".")}.' if prefix else ''


def without_prefix(state_dict: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """The tensors whose keys start so, without it."""
    return {key[len(prefix) :]: value for key, value in state_dict.items() if key.startswith(prefix)}


def count(keys: Iterable[str], pattern: str) -> int:
    """Number of different indices that a pattern's group finds at the start of the keys."""
    return len({match[1] for match in map(re.compile(pattern).match, keys) if match})


def require(state_dict: Mapping[str, Tensor], names: Iterable[str], what: str) -> None:
    """Raises ValueError that names the tensors which are not there, if any."""
    missing = [name for name in names if name not in state_dict]
    if missing:
        raise ValueError(f'not {what}: {first_few(missing)} missing')
