# Copyright (c) addp_mm contributors. Apache-2.0.
"""What each named part of a call costs: time, or counted operations."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

OTHER = 'other'


class Spans:
    """Measures parts of a call by wrapping functions. Nested parts are not counted twice.

    Example:
        >>> spans = Spans()
        >>> spans.wrap(model, 'decode', 'tokenizer decode')  # doctest: +SKIP
        >>> with spans.record(time.perf_counter) as parts:  # doctest: +SKIP
        ...     model.loss(images)
        >>> parts  # doctest: +SKIP
        {'other': 0.1, 'tokenizer decode': 4.8}
    """

    def __init__(self) -> None:
        self._clock: Callable[[], float] | None = None
        self._parts: dict[str, float] = {}
        self._open: list[str] = []
        self._since = 0.0
        self._undo: list[Callable[[], None]] = []

    def wrap(self, owner: Any, attribute: str, name: str) -> None:
        """Let calls of ``owner.attribute`` count as the part ``name``.

        Args:
            owner: An object, or a Python module.
            attribute: Name of its method or function.
            name: Name of the part. Several functions may have the same one.

        Raises:
            AttributeError: There is no such function.
        """
        original = getattr(owner, attribute)

        @functools.wraps(original)
        def measured(*args: Any, **kwargs: Any) -> Any:
            with self._span(name):
                return original(*args, **kwargs)

        self.replace(owner, attribute, measured)

    def replace(self, owner: Any, attribute: str, function: Callable[..., Any]) -> None:
        """Replace ``owner.attribute`` until :meth:`unwrap`.

        Args:
            owner: An object, or a Python module.
            attribute: Name of its method or function.
            function: What is called instead of it.

        Raises:
            AttributeError: There is no such function.
        """
        original = getattr(owner, attribute)
        is_own = attribute in vars(owner)
        setattr(owner, attribute, function)
        self._undo.append(
            functools.partial(setattr, owner, attribute, original)
            if is_own
            else functools.partial(delattr, owner, attribute)
        )

    def unwrap(self) -> None:
        """Put all original functions back."""
        while self._undo:
            self._undo.pop()()

    @contextmanager
    def record(self, clock: Callable[[], float]) -> Iterator[dict[str, float]]:
        """Measure the parts of what runs inside; gives the dict that holds them afterwards.

        Args:
            clock: Returns the time or count so far.
        """
        parts: dict[str, float] = {}
        self._clock, self._parts, self._open, self._since = clock, parts, [OTHER], clock()
        try:
            yield parts
            self._charge()
        finally:
            self._clock = None

    def enter(self, name: str) -> None:
        """Begin a part inside the one that runs. Does nothing if nothing is recorded."""
        if self._clock is not None:
            self._charge()
            self._open.append(name)

    def leave(self) -> None:
        """End the part that was begun last."""
        if self._clock is not None:
            self._charge()
            self._open.pop()

    @contextmanager
    def _span(self, name: str) -> Iterator[None]:
        self.enter(name)
        try:
            yield
        finally:
            self.leave()

    def _charge(self) -> None:
        """Add what passed since the last change to the innermost part that runs."""
        assert self._clock is not None
        now = self._clock()
        name = self._open[-1]
        self._parts[name] = self._parts.get(name, 0) + now - self._since
        self._since = now
