# Copyright (c) addp_mm contributors. Apache-2.0.
"""The classes that a user asks for, by number or by name."""

from __future__ import annotations

from collections.abc import Sequence

from addp_mm.errors import ConfigError, first_few, suggest

ALL = 'all'


def choose_classes(wanted: Sequence[str], num_classes: int, names: Sequence[str] = ()) -> list[int]:
    """Numbers of classes that were given as text.

    Args:
        wanted: Numbers or names; ['all'] for all classes in their order. A class may occur several
            times.
        num_classes: Classes of the model; 0 if it is unconditional.
        names: Names of the classes, if they are known. Defaults to (): not known.

    Raises:
        ConfigError: The model has no classes, or not one of these.
    """
    if not num_classes:
        raise ConfigError(
            f'--classes {" ".join(wanted)}: the model has no classes (num_classes is 0). Give a model that was trained '
            'with classes, or leave --classes out'
        )
    if list(wanted) == [ALL]:
        return list(range(num_classes))
    if ALL in wanted and ALL not in names:
        raise ConfigError(f'--classes {" ".join(wanted)}: {ALL} is given alone')
    return [_number(text, num_classes, names if len(names) == num_classes else ()) for text in wanted]


def _number(text: str, num_classes: int, names: Sequence[str]) -> int:
    if text in names:
        return list(names).index(text)
    if text.isdecimal() and int(text) < num_classes:
        return int(text)
    known = f', or a name: {first_few(names)}' if names else ''
    raise ConfigError(
        f'--classes {text}: the model has no such class. Give numbers from 0 to {num_classes - 1}{known}, or {ALL}'
        f'{suggest(text, names)}'
    )
