# Copyright (c) addp_mm contributors. Apache-2.0.
"""What the checks of :mod:`addp_mm.checks.counting` find."""

from dataclasses import dataclass, field


@dataclass
class CountingFaults:
    """Faults of what a training counts, one sentence each.

    Attributes:
        errors: Training would not end, would fail, or would keep one learning rate.
        warnings: Training would do something else than the config seems to mean.
    """

    errors: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
