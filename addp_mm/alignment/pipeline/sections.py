# Copyright (c) addp_mm contributors. Apache-2.0.
"""Read the section ``alignment`` of a config: what must be there, and what is unknown."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from addp_mm.errors import ConfigError, suggest

SECTION = 'alignment'
_FLAGS = ('amp', 'constant_temperature', 'invert_mask', 'reconstruction')
_JOINED = ('box', 'outpaint')


def as_options(section: Mapping[str, Any]) -> list[str]:
    """A section as options of a command. None and false flags are left out."""
    options: list[str] = []
    for key, value in section.items():
        option = '--' + key.replace('_', '-')
        if key in _FLAGS:
            options += [option] if value else []
        elif value is not None:
            values = [str(part) for part in value] if isinstance(value, (list, tuple)) else [str(value)]
            options += [option, *([','.join(values)] if key in _JOINED else values)]
    return options


def part_of(section: Mapping[str, Any], key: str, known: Sequence[str], optional: bool = False) -> dict[str, Any]:
    """A dict in the section, whose keys are known.

    Args:
        section: The section.
        key: Its key.
        known: Keys that it may have.
        optional: Whether it may be missing; then it is empty. Defaults to False.

    Raises:
        ConfigError: It is missing, is not a dict, or has an unknown key.
    """
    found = section.get(key) or {} if optional else needed(section, key)
    refuse_unknown(require_dict(found, f'{SECTION}.{key}'), known, f'{SECTION}.{key}')
    return dict(found)


def needed(section: Mapping[str, Any], key: str, name: str = SECTION) -> Any:
    """The value of a key; a ConfigError if it is missing."""
    if section.get(key) is None:
        raise ConfigError(f'{name}.{key} is missing: see configs/_base_/alignment')
    return section[key]


def require_dict(value: Any, name: str) -> Mapping[str, Any]:
    """The value, if it is a dict; otherwise a ConfigError."""
    if not isinstance(value, Mapping):
        raise ConfigError(f'{name} must be a dict, got {value!r}')
    return value


def require_number(value: Any, least: int, name: str) -> int:
    """The value, if it is a whole number of at least ``least``; otherwise a ConfigError."""
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise ConfigError(f'{name} must be a whole number of at least {least}, got {value!r}')
    return value


def refuse_unknown(section: Mapping[str, Any], known: Sequence[str], name: str) -> None:
    """Raise a ConfigError if a section has other keys than the known ones."""
    for key in section:
        if key not in known:
            raise ConfigError(f'{name}.{key} is unknown{suggest(key, known)}; there are {", ".join(known)}')
