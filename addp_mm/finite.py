# Copyright (c) addp_mm contributors. Apache-2.0.
"""Whether a number is finite, also one that no float can hold."""

import math
from numbers import Real


def is_finite(value: float | Real) -> bool:
    """Whether a float can hold a number, and it is neither NaN nor Inf.

    ``math.isfinite`` raises an OverflowError for integers from about 1.8e308 on.
    """
    try:
        return math.isfinite(value)
    except OverflowError:
        return False
