# Copyright (c) addp_mm contributors. Apache-2.0.
"""The trajectories of edited images."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from addp_mm.checkpoints.atomic_write import write_json
from addp_mm.errors import ConfigError
from addp_mm.generation.edits import Edit, sample_name
from addp_mm.generation.tiles import TiledInpainter
from addp_mm.generation.trajectories.trajectories import Trajectories
from addp_mm.generation.trajectories.trajectory_files import TrajectoryFiles, check_settings


class EditTrajectories:
    """Trajectories of all samples, one file for each image.

    The samples of image i of N with a mask have the numbers from i · ``num_samples`` on.

    Args:
        folder: Folder of the trajectories.
        edits: All images with their masks.
        inpainter: The inpainter.
        num_samples: Samples of each image.
        settings: What determines the pixels, besides the images and their masks.

    Attributes:
        missing: Numbers of the samples whose trajectories are not written yet.

    Raises:
        ConfigError: An image has several tiles, which make no trajectory.
        TrajectoryError: The folder has trajectories of other images or settings.
    """

    def __init__(
        self,
        folder: Path,
        edits: Iterable[Edit],
        inpainter: TiledInpainter,
        num_samples: int,
        settings: Mapping[str, Any],
    ) -> None:
        self._files, self._num_samples = TrajectoryFiles(folder), num_samples
        self._index_of: dict[Path, int] = {}
        digest = hashlib.sha256()
        for edit in edits:
            if edit.mask.any():
                _require_one_tile(edit, inpainter)
                digest.update(f'{edit.name}\0{edit.inputs}\0'.encode())
                self._index_of[edit.name] = len(self._index_of)
        self._settings = dict(settings, amp=False, num_samples=num_samples, images=digest.hexdigest())
        total = len(self._index_of) * num_samples
        self.missing = frozenset(self._files.missing(total))
        if len(self.missing) < total:
            check_settings(self._files.settings(), self._settings, self._files.folder)

    def number(self, name: Path, sample: int) -> int:
        """Number of a sample of an image."""
        return self._index_of[name] * self._num_samples + sample

    def write(self, edits: Sequence[Edit], trajectories: Trajectories) -> None:
        """Write the trajectories of all samples of images, those of one image after the other."""
        for index, edit in enumerate(edits):
            own = trajectories[index * self._num_samples : (index + 1) * self._num_samples]
            self._files.write(self.number(edit.name, 0), own, self._settings)

    def write_names(self) -> None:
        """Write images.json beside the trajectories: the image file of each number."""
        names = {
            f'{self.number(name, sample):06d}': sample_name(name, sample)
            for name in self._index_of
            for sample in range(self._num_samples)
        }
        write_json(self._files.folder / 'images.json', names)


def _require_one_tile(edit: Edit, inpainter: TiledInpainter) -> None:
    """Refuse an image of several tiles: a later tile depends on pixels of the earlier ones."""
    tiles = len(inpainter.plan(torch.from_numpy(edit.mask)[None])[0])
    if tiles > 1:
        raise ConfigError(
            f'--trajectories: {edit.source} needs {tiles} tiles for its mask, and a trajectory is that of one tile. '
            'Leave the image out, or give a smaller mask or image'
        )
