# Copyright (c) addp_mm contributors. Apache-2.0.
"""The value of an option ``KEY=VALUE``: from text to a Python value."""

import json
import os
import re
from typing import Any

from addp_mm.errors import ConfigError

_CLOSING = {'(': ')', '[': ']', '{': '}'}
_QUOTES = ('"', "'")
_DEEPEST = 50  # brackets inside each other


def read_value(text: str, present: Any = None) -> Any:
    """Read the text of a value.

    Numbers, ``True``, ``False``, ``None``, lists, tuples and dicts are written as in Python; words
    inside brackets need no quotes. Any other text is a string, as it is written. A comma makes a
    list only if all its parts are numbers and the like, or if the present value is a list.

    Args:
        text: The text behind the ``=``.
        present: The value in the config. Defaults to None: there is none.

    Returns:
        The value. A string that begins with ``~/`` begins with the home folder instead.

    Raises:
        ConfigError: A bracket is not closed, a dict has an entry without a key, or one whose key is
            a list, or too many brackets are inside each other.

    >>> read_value('my run, 1'), read_value('1,2'), read_value('a,b', present=['c'])
    ('my run, 1', [1, 2], ['a', 'b'])
    >>> read_value('[(a,1e-3),{"b": None}]'), read_value('dict(type=SGD, nesterov=True)')
    ([('a', 0.001), {'b': None}], {'type': 'SGD', 'nesterov': True})
    """
    stripped = text.strip()
    if _is_quoted(stripped):
        # as in mmengine, quotes around a number do not matter where the config has a number
        plain = present is None or isinstance(present, str)
        return stripped[1:-1] if plain else read_value(stripped[1:-1], present)
    if _is_bracketed(stripped):
        return _bracketed(stripped)
    parts = _split(text) or [text]
    if len(parts) > 1:
        parts = parts if parts[-1].strip() else parts[:-1]
        values = [_element(part) for part in parts]
        if isinstance(present, list | tuple) or not any(
            _is_plain_text(*pair) for pair in zip(parts, values, strict=True)
        ):
            return values
    value = _word(stripped)
    return _in_home(text) if isinstance(value, str) else value


def words(text: str) -> list[str] | None:
    """``['a', 'b/c']`` for ``'a,b/c'``; None if a part is not a name, as in the path of a file.

    Args:
        text: The text of a value.
    """
    parts = [part.strip() for part in text.split(',')]
    return parts if all(re.fullmatch(r'\w[\w/-]*', part) for part in parts) else None


def _is_quoted(text: str) -> bool:
    return len(text) > 1 and text[0] in _QUOTES and text[-1] == text[0] and text[0] not in text[1:-1]


def _is_plain_text(part: str, value: Any) -> bool:
    return isinstance(value, str) and not _is_quoted(part.strip())


def _in_home(text: str) -> str:
    return os.path.expanduser(text) if text.startswith('~/') else text


def _word(text: str) -> Any:
    """A number, truth value or None; else the text itself."""
    if text.lower() in ('true', 'false'):
        return text.lower() == 'true'
    if text == 'None':
        return None
    # Python takes 2024_11 for a number
    for kind in (int, float) if '_' not in text else ():
        try:
            return kind(text)
        except ValueError:
            pass
    return text


def _element(text: str) -> Any:
    """A part of a list or dict."""
    stripped = text.strip()
    if _is_quoted(stripped):
        return stripped[1:-1]
    return _bracketed(stripped) if _is_bracketed(stripped) else _word(stripped)


def _is_bracketed(text: str) -> bool:
    """Whether the text is one pair of brackets, or ``dict(…)``.

    Raises:
        ConfigError: It starts with a bracket that is never closed.
    """
    start = 4 if text.startswith('dict(') else 0
    if text[start : start + 1] not in _CLOSING or not text:
        return False
    inner = _split(text[start:], mark='')
    if inner is None:
        raise ConfigError(f'the brackets of {text} do not match. If it is not a list, write it in quotes: \'"{text}"\'')
    return len(inner) == 1


def _split(text: str, mark: str = ',') -> list[str] | None:
    """Split at every ``mark`` outside of quotes and brackets.

    Args:
        text: The text.
        mark: One character, or '' to split after every pair of brackets that is closed. Defaults to
            ','.

    Returns:
        The parts; None if brackets or quotes do not match.

    Raises:
        ConfigError: Too many brackets are inside each other.
    """
    parts, open_brackets, quote, begin = [], [], '', 0
    for index, char in enumerate(text):
        if quote:
            quote = '' if char == quote else quote
        elif char in _QUOTES and text[:index].rstrip()[-1:] in ('', *'([{,:='):
            quote = char  # elsewhere it is an apostrophe
        elif char in _CLOSING:
            open_brackets.append(_CLOSING[char])
            if len(open_brackets) > _DEEPEST:
                raise ConfigError(f'{text[:60]}… has more than {_DEEPEST} brackets inside each other')
        elif char in _CLOSING.values():
            if not open_brackets or open_brackets.pop() != char:
                return None
            if not mark and not open_brackets:
                parts.append(text[begin : index + 1])
                begin = index + 1
        elif char == mark and not open_brackets:
            parts.append(text[begin:index])
            begin = index + 1
    if open_brackets or quote:
        return None
    rest = text[begin:]
    return [*parts, rest] if mark or rest else parts


def _bracketed(text: str) -> Any:
    if text.startswith('{'):
        try:
            return json.loads(text)
        except ValueError:
            return _pairs(text, text[1:-1], ':')
    if text.startswith('dict('):
        return _pairs(text, text[5:-1], '=')
    parts = _split(text[1:-1]) or []
    parts = parts if parts and parts[-1].strip() else parts[:-1]
    values = [_element(part) for part in parts]
    return values if text.startswith('[') else tuple(values)


def _pairs(text: str, inner: str, mark: str) -> dict:
    """The entries of a dict, ``key: value`` or ``key=value``."""
    found = {}
    for part in (part for part in _split(inner) or [] if part.strip()):
        key, *value = _split(part, mark) or ['']
        if not key.strip() or not value:
            raise ConfigError(f'{text} is a dict whose entry {part.strip()} is not KEY{mark}VALUE')
        try:
            found[_element(key)] = _element(mark.join(value))
        except TypeError as error:  # a list or a dict
            raise ConfigError(f'{text} is a dict with the key {key.strip()}; a key is a word or a number') from error
    return found
