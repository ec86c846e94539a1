# Copyright (c) addp_mm contributors. Apache-2.0.
"""Labels of a segmentation crop that are counted without sorting."""

from __future__ import annotations

from typing import Any

from addp_mm.compat.importing import ModuleView

_EXACT = 2**24  # OpenCV counts in float32


def patch_counted_labels(module: Any) -> bool:
    """Make mmsegmentation's transforms count the labels of a map in one pass.

    ``RandomCrop`` with ``cat_max_ratio`` calls ``np.unique``, which sorts all pixels of each crop.

    Args:
        module: ``mmseg.datasets.transforms.transforms``.

    Returns:
        True.
    """
    module.np = ModuleView('numpy', unique=_unique)
    return True


def _unique(values: Any, *args: Any, **kwargs: Any) -> Any:
    """``np.unique``, faster for labels of eight bits."""
    import cv2
    import numpy as np

    known = isinstance(values, np.ndarray) and values.dtype == np.uint8 and 0 < values.size < _EXACT
    if args or set(kwargs) - {'return_counts'} or not known:
        return np.unique(values, *args, **kwargs)
    counts = cv2.calcHist([np.ascontiguousarray(values).reshape(1, -1)], [0], None, [256], [0, 256]).reshape(-1)
    labels = np.flatnonzero(counts)
    found = labels.astype(np.uint8)
    return (found, counts[labels].astype(np.intp)) if kwargs.get('return_counts') else found
