# Copyright (c) addp_mm contributors. Apache-2.0.
"""FashionScenes: coloured photographs of garments on smooth backgrounds, with annotations."""

import colorsys
from dataclasses import dataclass

import cv2
import numpy as np

from addp_mm.datasets.fashion.fashion_mnist import CLASSES, GARMENT_SIZE, Garments, garment_alpha

# Increase it when the same seed no longer gives the same images.
SCENES_VERSION = 2
SPLITS = ('train', 'val')
MIN_IMAGE_SIZE = 32

_KINDS = ('scene', 'object', 'background')  # their order is part of the seeds
_COUNT_SHARES = (0.3, 0.3, 0.2, 0.12, 0.08)  # probabilities of one to five garments in a scene
_SCENE_EXTENT = (0.48, 0.74)  # side of a garment's photograph as a share of the image's side
_OBJECT_EXTENT = (0.65, 0.95)
_MAX_ROTATION = 20.0  # degrees
_MIN_VISIBLE = 0.45  # share of a garment's area that stays visible
_PLACEMENT_TRIES = 20
_DARKEST_SHADE = 0.3
_MIN_CONTRAST = 0.35  # RGB distance of a garment's colour from the background
# Few colours, because 64 tokens cannot encode both shapes and many shades.
_DYES = np.array(
    [
        (0.85, 0.22, 0.22),  # red
        (0.95, 0.60, 0.20),  # orange
        (0.95, 0.88, 0.35),  # yellow
        (0.30, 0.70, 0.35),  # green
        (0.30, 0.75, 0.80),  # turquoise
        (0.25, 0.38, 0.85),  # blue
        (0.62, 0.32, 0.75),  # purple
        (0.98, 0.97, 0.95),  # white
    ]
)


@dataclass(frozen=True)
class Scene:
    """One image with its annotations.

    Args:
        image: RGB, uint8 (S, S, 3).
        owner: The garment that a pixel shows, as an index into ``labels``; -1 is background. int16,
            shape (S, S).
        labels: Indices into ``CLASSES`` of the garments, in the order of painting, int64 (N,).
    """

    image: np.ndarray
    owner: np.ndarray
    labels: np.ndarray

    def masks(self) -> np.ndarray:
        """Mask of the visible pixels of each garment, bool (N, S, S)."""
        return self.owner[None] == np.arange(len(self.labels))[:, None, None]

    def label_map(self) -> np.ndarray:
        """Classes as ADE20K numbers them, uint8 (S, S).

        1 is background, a garment is 2 + its index into ``CLASSES``. 0 is not used.
        """
        return np.concatenate([self.labels + 2, [1]]).astype(np.uint8)[self.owner]


class SceneGenerator:
    """Compose images from the garments of one split.

    An image depends only on the garments, its size, the seed, the split, the kind and its index. No
    global random state is read or changed.

    Args:
        garments: Photographs to choose from.
        image_size: Side S of the square images in pixels, at least 32.
        split: 'train' or 'val'.
        seed: Any non-negative integer. Defaults to 0.

    Raises:
        ValueError: A value is outside its range, or a class has no garment.

    >>> generator = SceneGenerator(load_garments('val'), image_size=64, split='val')
    >>> scene = generator.scene(0)
    >>> scene.image.shape, scene.masks().shape[0] == len(scene.labels)
    ((64, 64, 3), True)
    """

    def __init__(self, garments: Garments, image_size: int, split: str, seed: int = 0) -> None:
        if image_size < MIN_IMAGE_SIZE:
            raise ValueError(f'image_size must be at least {MIN_IMAGE_SIZE} pixels, got {image_size}')
        if split not in SPLITS:
            raise ValueError(f'split must be one of {SPLITS}, got {split!r}')
        if seed < 0:
            raise ValueError(f'seed must not be negative, got {seed}')
        self.garments = garments
        self.image_size = image_size
        self.split = split
        self.seed = seed
        self._by_class = [np.flatnonzero(garments.labels == label) for label in range(len(CLASSES))]
        missing = [name for name, index in zip(CLASSES, self._by_class, strict=False) if not len(index)]
        if missing:
            raise ValueError(f'no garment of the classes {missing}')
        # In small images the photographs are reduced: they are drawn at a higher resolution and
        # averaged, to avoid aliasing.
        self._oversampling = 2 if image_size < 128 else 1

    def scene(self, index: int) -> Scene:
        """Compose one to five garments, which may overlap; at least 45 % of each stays visible."""
        rng = self._rng('scene', index)
        labels = rng.integers(len(CLASSES), size=rng.choice(len(_COUNT_SHARES), p=_COUNT_SHARES) + 1)
        return self._compose(rng, labels, _SCENE_EXTENT)

    def object_image(self, index: int) -> Scene:
        """Compose one large garment of class ``index % 10``."""
        return self._compose(self._rng('object', index), np.array([index % len(CLASSES)]), _OBJECT_EXTENT)

    def background(self, index: int) -> Scene:
        """Compose a scene without garments: a background under its light, with noise."""
        return self._compose(self._rng('background', index), np.zeros(0, np.int64), _SCENE_EXTENT)

    def _rng(self, kind: str, index: int) -> np.random.Generator:
        return np.random.default_rng([self.seed, SPLITS.index(self.split), _KINDS.index(kind), index])

    def _compose(self, rng: np.random.Generator, labels: np.ndarray, extent: tuple[float, float]) -> Scene:
        ground = _muted_colour(rng)
        image = _background(rng, ground, self.image_size)
        owner = np.full((self.image_size, self.image_size), -1, np.int16)
        areas: list[float] = []
        placed: list[int] = []
        for label, dye in zip(labels, _dyes(rng, ground), strict=False):
            garment = self.garments.images[rng.choice(self._by_class[label])]
            placement = self._place(rng, garment, label, extent, owner, areas)
            if placement is None:
                continue
            alpha, shade, area = placement
            owner[alpha >= 0.5] = len(placed)
            image = image * (1 - alpha[..., None]) + shade[..., None] * dye
            areas.append(area)
            placed.append(label)
        noise = rng.normal(scale=rng.uniform(0.004, 0.012), size=image.shape)
        image = np.rint((image + noise) * 255).clip(0, 255).astype(np.uint8)
        return Scene(image, owner, np.array(placed, np.int64))

    def _place(
        self,
        rng: np.random.Generator,
        garment: np.ndarray,
        label: int,
        extent: tuple[float, float],
        owner: np.ndarray,
        areas: list[float],
    ) -> tuple[np.ndarray, np.ndarray, float] | None:
        """Try random positions until every garment stays visible.

        Returns:
            Alpha and shade times alpha, float32 (S, S), and the garment's area in pixels; None if
            no position was found, in a crowded scene.
        """
        layers = _layers(garment, label)
        if rng.random() < 0.5:
            layers = np.ascontiguousarray(layers[:, ::-1])
        for _ in range(_PLACEMENT_TRIES):
            edge = rng.uniform(*extent) * self.image_size
            # Only the border of a photograph may be outside the image. A large one stays near the
            # centre.
            margin = min(0.44 * edge, 0.48 * self.image_size)
            centre = rng.uniform(margin, self.image_size - margin, size=2)
            warped = self._warp(layers, edge, rng.uniform(-_MAX_ROTATION, _MAX_ROTATION), centre)
            alpha = warped[..., 0].clip(0, 1)
            area = float(layers[..., 0].sum()) * (edge / GARMENT_SIZE) ** 2
            after = owner.copy()
            after[alpha >= 0.5] = len(areas)
            visible = np.bincount(after.ravel() + 1, minlength=len(areas) + 2)[1:]
            if (visible >= _MIN_VISIBLE * np.array(areas + [area])).all():
                return alpha, warped[..., 1].clip(0, alpha), area
        return None

    def _warp(self, layers: np.ndarray, edge: float, degrees: float, centre: np.ndarray) -> np.ndarray:
        """Rotate a photograph, scale it to ``edge`` pixels and move its centre to (x, y)."""
        fine = self._oversampling
        middle = (GARMENT_SIZE - 1) / 2
        matrix = cv2.getRotationMatrix2D((middle, middle), degrees, edge * fine / GARMENT_SIZE)
        matrix[:, 2] = matrix[:, 2] + (centre * fine - 0.5 - middle)
        size = self.image_size * fine
        warped = cv2.warpAffine(layers, matrix, (size, size), flags=cv2.INTER_CUBIC)
        return warped if fine == 1 else cv2.resize(warped, None, fx=1 / fine, fy=1 / fine, interpolation=cv2.INTER_AREA)


def _layers(garment: np.ndarray, label: int) -> np.ndarray:
    """Alpha and premultiplied brightness of a photograph, float32 (28, 28, 2)."""
    cut_out = garment_alpha(garment, label)
    # The soft edge of a photograph fades to black, which would be a dark outline on another
    # background.
    rim = cut_out & ~cv2.erode(cut_out.astype(np.uint8), np.ones((3, 3), np.uint8)).astype(bool)
    grey = np.where(rim, cv2.dilate(garment, np.ones((3, 3), np.uint8)), garment).astype(np.float32) / 255
    shade = _DARKEST_SHADE + (1 - _DARKEST_SHADE) * grey
    return np.stack([cut_out, shade * cut_out], -1).astype(np.float32)


def _muted_colour(rng: np.random.Generator) -> np.ndarray:
    return np.array(colorsys.hsv_to_rgb(rng.random(), rng.uniform(0.03, 0.14), rng.uniform(0.4, 0.75)))


def _background(rng: np.random.Generator, colour: np.ndarray, size: int) -> np.ndarray:
    """One colour under smooth light, shape (S, S, 3), in [0, 1]."""
    coarse = rng.uniform(-1, 1, size=(3, 3)).astype(np.float32) * rng.uniform(0.03, 0.1)
    light = cv2.resize(coarse, (size, size), interpolation=cv2.INTER_CUBIC)
    return (colour * (1 + light[..., None])).clip(0, 1)


def _dyes(rng: np.random.Generator, ground: np.ndarray) -> np.ndarray:
    """The colours that contrast with the background, in random order, shape (D, 3)."""
    return rng.permutation(_DYES[np.linalg.norm(_DYES - ground, axis=1) >= _MIN_CONTRAST])
