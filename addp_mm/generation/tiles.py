# Copyright (c) addp_mm contributors. Apache-2.0.
"""Inpainting of images of any size, in overlapping tiles of the model's size."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from addp_mm.errors import ConfigError
from addp_mm.generation.alternating_sampler import AlternatingSampler, Labels, check_batch_size
from addp_mm.generation.class_labels import class_labels
from addp_mm.generation.sampling_state import Samples, SamplingStep
from addp_mm.generation.token_mask import token_mask

NO_ID = -1  # of tokens that are in no tile


@dataclass(frozen=True)
class Tile:
    """A window of the model's size.

    Attributes:
        top: Row of its first token.
        left: Column of its first token.
        new: (h, w) bool, True for the tokens that this tile generates.
    """

    top: int
    left: int
    new: Tensor

    def window(self, stride: int = 1) -> tuple[slice, slice]:
        """Its rows and columns, in tokens, or in pixels if ``stride`` is the side of a token."""
        height, width = self.new.shape
        return (
            slice(self.top * stride, (self.top + height) * stride),
            slice(self.left * stride, (self.left + width) * stride),
        )


def plan_tiles(mask: Tensor, grid_size: tuple[int, int], overlap: int | None = None) -> list[Tile]:
    """Cover the masked tokens of one image with tiles, in the order of their generation.

    A masked region that fits into one tile, with half the overlap around it, gets a tile of its
    own with the region in its centre. A larger region gets several, which overlap each other and
    what is around the region. The tile with the fewest tokens to generate comes first, so that new
    parts grow from known ones. The first tile with a masked token generates it.

    Args:
        mask: (rows, columns) bool over the tokens of the image, True where to generate. It has at
            least the size of a tile.
        grid_size: (h, w) of a tile, in tokens.
        overlap: Tokens that neighbouring tiles share. Defaults to None: half a tile.

    Returns:
        Each masked token is in ``new`` of exactly one tile. A mask of the size of a tile gives one
        tile, also if nothing is masked.

    Raises:
        ConfigError: The overlap is negative, or not smaller than a tile.
    """
    _check_overlap(overlap, grid_size)
    if tuple(mask.shape) == tuple(grid_size):
        return [Tile(0, 0, mask)]
    pending = mask.cpu().numpy().copy()
    corners = np.array(_corners(pending, grid_size, overlap), dtype=int).reshape(-1, 2)
    windows = [(slice(top, top + grid_size[0]), slice(left, left + grid_size[1])) for top, left in corners]
    counts = np.array([pending[window].sum() for window in windows])
    tiles = []
    while counts.any():
        chosen = int(np.where(counts > 0, counts, pending.size + 1).argmin())
        top, left = corners[chosen].tolist()
        tiles.append(Tile(top, left, torch.from_numpy(pending[windows[chosen]].copy())))
        pending[windows[chosen]] = False
        for index in np.flatnonzero((abs(corners - corners[chosen]) < grid_size).all(1)):
            counts[index] = pending[windows[index]].sum()
    return tiles


def _check_overlap(overlap: int | None, grid_size: tuple[int, int]) -> None:
    if overlap is not None and not 0 <= overlap < min(grid_size):
        raise ConfigError(
            f'overlap must be from 0 to {min(grid_size) - 1} tokens, because a tile has '
            f'{grid_size[0]}x{grid_size[1]}; got {overlap}'
        )


def _corners(mask: np.ndarray, grid_size: tuple[int, int], overlap: int | None) -> list[tuple[int, int]]:
    """First tokens of windows around each connected region of a mask."""
    from scipy import ndimage

    regions, _ = ndimage.label(mask, structure=np.ones((3, 3)))
    corners: list[tuple[int, int]] = []
    for region in ndimage.find_objects(regions):
        starts = [
            _starts(sides.start, sides.stop, size, extent, size // 2 if overlap is None else overlap)
            for sides, size, extent in zip(region, grid_size, mask.shape, strict=True)
        ]
        corners += [(top, left) for top in starts[0] for left in starts[1]]
    return corners


def _starts(first: int, stop: int, size: int, extent: int, overlap: int) -> list[int]:
    """First tokens along one side of windows that cover a region, with known tokens around it."""

    def around(margin: int) -> tuple[int, int]:
        return max(0, first - margin), min(extent, stop + margin)

    low, high = around(overlap // 2)
    if high - low <= size:
        return [min(max(0, low - (size - (high - low)) // 2), extent - size)]
    low, high = around(overlap)
    gaps = math.ceil((high - low - size) / (size - overlap))
    return [low + index * (high - low - size) // gaps for index in range(gaps + 1)]


class TiledInpainter:
    """Generates the masked part of images of any size.

    The tiles of an image are generated one after the other, and each sees the pixels and ids of
    the earlier ones. Tiles of different images are generated together. The first tile with a token
    decides on its id and its decoded pixels. An image of the model's size is one tile.

    Args:
        sampler: Generates tiles; its grid is that of a tile.
        stride: Side of a token in pixels.
        overlap: Tokens that neighbouring tiles share. Defaults to None: half a tile.

    Raises:
        ConfigError: The overlap is negative, or not smaller than a tile.

    Example:
        >>> inpainter = TiledInpainter(sampler, stride=8)  # doctest: +SKIP
        >>> generators = [image_generator(seed=0, index=0)]  # doctest: +SKIP
        >>> inpainter.run(images, mask, generators).images.shape  # doctest: +SKIP
        torch.Size([1, 3, 128, 200])
    """

    def __init__(self, sampler: AlternatingSampler, stride: int, overlap: int | None = None) -> None:
        _check_overlap(overlap, sampler.grid_size)
        self.sampler, self.stride, self.overlap = sampler, stride, overlap

    def plan(self, mask: Tensor) -> list[list[Tile]]:
        """The tiles of each image; see :func:`plan_tiles`.

        Args:
            mask: (B, H, W) bool over the pixels, True where to generate.
        """
        mask = _pad(mask[:, None].float(), self.sampler.grid_size, self.stride)[:, 0].bool()
        rows, columns = (side // self.stride for side in mask.shape[1:])
        # samples of one image have the same mask
        tokens, which = token_mask(mask.cpu(), self.stride).view(-1, rows, columns).unique(dim=0, return_inverse=True)
        plans = [plan_tiles(one, self.sampler.grid_size, self.overlap) for one in tokens]
        return [plans[index] for index in which]

    @torch.no_grad()
    def run(
        self,
        images: Tensor,
        mask: Tensor,
        generators: Sequence[torch.Generator],
        paste: bool = True,
        labels: Labels = None,
        batch_size: int | None = None,
        keep_steps: bool = False,
        progress: Callable[[int], None] | None = None,
    ) -> Samples:
        """Generate the masked part of each image.

        Args:
            images: (B, C, H, W) in [0, 1], of any size.
            mask: (B, H, W) bool, True where to generate.
            generators: One for each image. Its tiles use it in their order.
            paste: Whether pixels outside the mask are those of ``images``. Otherwise they are
                decoded from their tokens, where a tile has them. Defaults to True.
            labels: Class of each image; -1 is "no class". Defaults to None: no class for all.
            batch_size: Tiles at a time. Defaults to None: one of each image.
            keep_steps: Whether to keep the state after each step, for images of one tile. Defaults
                to False.
            progress: Called after each step with the number of tiles in the batch. Defaults to
                None.

        Returns:
            The images, on the model's device. The ids are those of all tokens of the image, padded
            to at least a tile; -1 for tokens that are in no tile.

        Raises:
            ConfigError: See :meth:`~addp_mm.generation.AlternatingSampler.complete`.
            ValueError: There are no images, or the batch size is below 1.
        """
        batch_size = check_batch_size(batch_size, len(images))
        plans = self.plan(mask)
        device = self.sampler.model.tokenizer.codebook.device
        images, mask = images.to(device, torch.float32), mask.to(device)
        canvas = _Canvas(_pad(images, self.sampler.grid_size, self.stride), self.stride)
        class_labels(labels, len(images), self.sampler.num_classes)
        classes = None if labels is None else torch.as_tensor(labels)
        steps: tuple[SamplingStep, ...] = ()
        for turn in range(max(map(len, plans))):
            members = [index for index, tiles in enumerate(plans) if turn < len(tiles)]
            tiles = [plans[index][turn] for index in members]
            tokenized = [
                self.sampler.model.tokenize(part)[0] for part in canvas.pixels(members, tiles).split(batch_size)
            ]
            ids = canvas.known_ids(members, tiles, torch.cat(tokenized))
            new = torch.stack([tile.new for tile in tiles]).flatten(1).to(device)
            own = [generators[index] for index in members], None if classes is None else classes[members]
            samples = self.sampler.complete(ids, new, *own, batch_size, keep_steps, progress)
            canvas.add(members, tiles, samples)
            steps = samples.steps
        trajectories = samples.trajectories if all(len(tiles) == 1 for tiles in plans) else None
        decoded = canvas.decoded[..., : images.shape[2], : images.shape[3]]
        finished = torch.where(mask[:, None], decoded, images) if paste else decoded
        return Samples(finished, canvas.ids.flatten(1), steps, trajectories)


class _Canvas:
    """Images of whole tokens while their tiles are generated.

    Attributes:
        seen: (B, C, H, W), what the next tiles see: given pixels, and new ones.
        decoded: (B, C, H, W), where a tile has the token its decoded pixels, else the given ones.
        ids: (B, rows, columns), -1 for tokens that no tile had yet.
    """

    def __init__(self, images: Tensor, stride: int) -> None:
        self.stride = stride
        self.seen, self.decoded = images.clone(), images.clone()
        size = (len(images), *(side // stride for side in images.shape[2:]))
        self.ids = torch.full(size, NO_ID, device=images.device)

    def pixels(self, members: Sequence[int], tiles: Sequence[Tile]) -> Tensor:
        """Pixels (M, C, h, w) of one tile of each of M images."""
        windows = [tile.window(self.stride) for tile in tiles]
        return torch.stack([self.seen[i, :, rows, cols] for i, (rows, cols) in zip(members, windows, strict=True)])

    def known_ids(self, members: Sequence[int], tiles: Sequence[Tile], tokenized: Tensor) -> Tensor:
        """Ids (M, L) of earlier tiles, and of the tokenizer for tokens that no tile had yet."""
        windows = [tile.window() for tile in tiles]
        found = torch.stack([self.ids[i, rows, cols] for i, (rows, cols) in zip(members, windows, strict=True)])
        return torch.where(found.flatten(1) == NO_ID, tokenized, found.flatten(1))

    def add(self, members: Sequence[int], tiles: Sequence[Tile], samples: Samples) -> None:
        """Put finished tiles into the images."""
        for index, tile, image, ids in zip(members, tiles, samples.images, samples.ids, strict=True):
            own_ids = self.ids[index][tile.window()]
            rows, columns = tile.window(self.stride)
            decoded, seen = self.decoded[index, :, rows, columns], self.seen[index, :, rows, columns]
            decoded.copy_(torch.where(self._over_pixels(own_ids == NO_ID), image, decoded))
            seen.copy_(torch.where(self._over_pixels(tile.new.to(image.device)), image, seen))
            own_ids.copy_(ids.view(tile.new.shape))

    def _over_pixels(self, tokens: Tensor) -> Tensor:
        return tokens.repeat_interleave(self.stride, 0).repeat_interleave(self.stride, 1)


def _pad(images: Tensor, grid_size: tuple[int, int], stride: int) -> Tensor:
    """Repeat the last row and column of images up to whole tokens, and to at least a tile.

    Masks are padded in the same way. Then padding beside masked pixels is generated too, and does
    not show the model what was below the mask.

    Args:
        images: (B, C, H, W).
        grid_size: (h, w) of a tile, in tokens.
        stride: Side of a token in pixels.
    """
    height, width = images.shape[2:]
    rows, columns = (
        max(least, math.ceil(side / stride)) for least, side in zip(grid_size, (height, width), strict=True)
    )
    return F.pad(images, (0, columns * stride - width, 0, rows * stride - height), mode='replicate')
