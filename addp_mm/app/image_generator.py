# Copyright (c) addp_mm contributors. Apache-2.0.
"""A model that generates images, with what the page has to know of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from addp_mm.generation import SamplingSchedule

if TYPE_CHECKING:
    from addp_mm.models.selfsup import ADDP


@dataclass(frozen=True)
class ImageGenerator:
    """ADDP behind the tabs Generate, Inpaint and Steps.

    Args:
        model: The model.
        classes: Names of its classes. Defaults to (): they have numbers only.
        schedule: With which the controls start. Defaults to the published one.
    """

    model: ADDP
    classes: Sequence[str] = ()
    schedule: SamplingSchedule = SamplingSchedule()
