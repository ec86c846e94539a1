# Copyright (c) addp_mm contributors. Apache-2.0.
"""The message of a refusal, for tests where both answers are right."""

from __future__ import annotations

from collections.abc import Callable

from addp_mm.errors import UserError


def refusal(function: Callable, *args, **kwargs) -> str:
    """Call a function; return the message of its UserError, or '' if it took the arguments."""
    try:
        function(*args, **kwargs)
    except UserError as error:
        return str(error) or type(error).__name__
    return ''
