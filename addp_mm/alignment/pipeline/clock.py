# Copyright (c) addp_mm contributors. Apache-2.0.
"""When the stages of an alignment end."""

from __future__ import annotations

import time
from collections.abc import Mapping

from addp_mm.stages.progress import time_of_day


class WorkClock:
    """Expected ends, from the pace of the work that is done.

    Args:
        work: Work of each stage, in one unit: passes of an image through the generator.
    """

    def __init__(self, work: Mapping[str, float]) -> None:
        self._left = dict(work)
        self._work = dict(work)
        self._seconds_of_unit: float | None = None
        self._seen: tuple[str, float, float] | None = None

    def line(self, stage: str, share: float, text: str) -> str:
        """A line on the progress of a stage.

        Args:
            stage: Its name.
            share: Share of its work that is done, from 0 to 1.
            text: Describes what is done.
        """
        now = time.monotonic()
        if self._seen is None or self._seen[0] != stage:
            self._seen = (stage, share, now)
        _, first, start = self._seen
        if share > first and self._work[stage]:
            self._seconds_of_unit = (now - start) / ((share - first) * self._work[stage])
        self._left[stage] = (1 - share) * self._work[stage]
        return f'{stage}: {text} ({share:.0%}){self._ends(stage)}'

    def done(self, stage: str) -> None:
        """Note the end of a stage."""
        self._left[stage] = 0.0

    def _ends(self, stage: str) -> str:
        if self._seconds_of_unit is None:
            return ''
        own, rest = (units * self._seconds_of_unit for units in (self._left[stage], sum(self._left.values())))
        return f'; this stage ends about {time_of_day(own)}, all stages about {time_of_day(rest)}'
