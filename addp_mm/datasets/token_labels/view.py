# Copyright (c) addp_mm contributors. Apache-2.0.
"""Which part of an image a view shows: an affine map from the view back to the image.

A point of a view or an image is (x, y), each from 0 at the left or upper edge to 1 at the other
edge. A view is a matrix (3, 3) that maps a point of the view, as (x, y, 1), to a point of the
image. The whole image is the identity. If a view is changed further, the matrix of the change is
multiplied from the right.
"""

import numpy as np

VIEW = 'view'  # key of the view among the results of a pipeline
WHOLE_IMAGE = np.eye(3)
_MIRRORED = {'horizontal': (True, False), 'vertical': (False, True), 'diagonal': (True, True)}


def crop_matrix(crop: tuple[int, int, int, int], height: int, width: int) -> np.ndarray:
    """The matrix of a crop.

    Args:
        crop: Upper edge, left edge, height and width of the crop in pixels.
        height: Height before the crop.
        width: Width before the crop.
    """
    top, left, crop_height, crop_width = crop
    return np.array([[crop_width / width, 0, left / width], [0, crop_height / height, top / height], [0, 0, 1]])


def flip_matrix(direction: str) -> np.ndarray:
    """The matrix of a flip; ``direction`` is 'horizontal', 'vertical' or 'diagonal' (both)."""
    horizontal, vertical = _MIRRORED[direction]
    return np.array([[-1 if horizontal else 1, 0, horizontal], [0, -1 if vertical else 1, vertical], [0, 0, 1]], float)


def warp_matrix(warp: np.ndarray, height: int, width: int) -> np.ndarray:
    """The matrix of an affine warp in OpenCV's form, for an image whose size does not change.

    Args:
        warp: (2, 3). It maps the index (column, row) of a pixel to its index after the warp.
        height: Height in pixels.
        width: Width in pixels.
    """
    # the centre of the pixel with index 0 is half a pixel from the edge
    to_points = np.array([[1 / width, 0, 0.5 / width], [0, 1 / height, 0.5 / height], [0, 0, 1]])
    return to_points @ np.linalg.inv(np.vstack([warp, [0, 0, 1]])) @ np.linalg.inv(to_points)
