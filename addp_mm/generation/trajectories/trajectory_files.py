# Copyright (c) addp_mm contributors. Apache-2.0.
"""A folder of trajectories, which several processes write and an interrupted run continues."""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from addp_mm.checkpoints.atomic_write import remove_partials, write_safetensors
from addp_mm.checkpoints.errors import CheckpointError
from addp_mm.checkpoints.reading import load_checkpoint_file
from addp_mm.errors import first_few
from addp_mm.generation.trajectories.trajectories import Trajectories, TrajectoryError, join_trajectories

_NAME = re.compile(r'\d{6,}-\d{6,}\.safetensors')
_SETTINGS = 'settings'


class TrajectoryFiles:
    """Trajectories of numbered images, in files of one batch each.

    A file is ``000000-000015.safetensors``, of the images 0 to 15: ``ids``, ``kept_at``,
    ``log_probs`` and ``labels`` as in
    :class:`~addp_mm.generation.trajectories.trajectories.Trajectories`, and the settings of the
    sampling as text. Each file is complete, or it does not exist. If an image is in several files,
    its trajectory is the same in all of them.

    Args:
        folder: The folder.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def write(self, start: int, trajectories: Trajectories, settings: Mapping[str, Any]) -> None:
        """Write the trajectories of images from number ``start`` on.

        Args:
            start: Number of the first image.
            trajectories: On the CPU.
            settings: What determines the trajectories, as JSON values: the fingerprint of the
                weights, the schedule, the seed.

        Raises:
            FileWriteError: The file cannot be written.
        """
        content = dict(
            ids=trajectories.ids.int(),
            kept_at=trajectories.kept_at.to(torch.int16),
            log_probs=trajectories.log_probs.float(),
            labels=trajectories.labels.int(),
        )
        path = self.folder / f'{start:06d}-{start + len(trajectories) - 1:06d}.safetensors'
        self.folder.mkdir(parents=True, exist_ok=True)
        text = json.dumps(settings, sort_keys=True)
        write_safetensors(path, {name: part.contiguous() for name, part in content.items()}, {_SETTINGS: text})

    def missing(self, num_images: int) -> list[int]:
        """Numbers of the images without a trajectory, below ``num_images``.

        Damaged files are removed, and those that a killed run left under a temporary name. No other
        process may write into the folder.
        """
        remove_partials(self.folder)
        found: set[int] = set()
        for path in self._paths():
            try:
                found.update(_numbers(path, len(_read(path)[0])))
            except TrajectoryError:
                path.unlink()
        return sorted({*range(num_images)} - found)

    def read(self) -> tuple[list[int], Trajectories, dict[str, Any]]:
        """Read all trajectories.

        Returns:
            The numbers of the images, in order; their trajectories; and the settings.

        Raises:
            TrajectoryError: There are none, a file is damaged, or the files have other settings.
        """
        numbers: dict[int, int] = {}
        parts, settings, first, rows = [], None, None, 0
        for path in self._paths():
            part, own = _read(path)
            if settings is None:
                settings, first = own, path
            if own != settings:
                changed = [key for key in sorted({*own, *settings}) if own.get(key) != settings.get(key)]
                raise TrajectoryError(
                    f'{path} has other settings than {first} ({first_few(changed)}): write each sampling into its own '
                    'folder'
                )
            numbers.update({number: rows + row for row, number in enumerate(_numbers(path, len(part)))})
            rows += len(part)
            parts.append(part)
        if settings is None:
            raise self._nothing()
        images = sorted(numbers)
        return images, join_trajectories(parts)[[numbers[image] for image in images]], settings

    def settings(self) -> dict[str, Any]:
        """The settings of the trajectories, from the first file.

        Raises:
            TrajectoryError: There are no trajectories, or the file is damaged.
        """
        first = next(self._paths(), None)
        if first is None:
            raise self._nothing()
        return _read(first)[1]

    def _nothing(self) -> TrajectoryError:
        return TrajectoryError(
            f'{self.folder} has no trajectories. To write them: addp generate CONFIG CHECKPOINT --out DIR '
            '--trajectories; they are in DIR/trajectories'
        )

    def _paths(self) -> Iterator[Path]:
        if self.folder.is_dir():
            yield from sorted(path for path in self.folder.iterdir() if _NAME.fullmatch(path.name))


def check_settings(settings: Mapping[str, Any], wanted: Mapping[str, Any], folder: Path) -> None:
    """Check that trajectories belong to a model and its sampler.

    Args:
        settings: Of the trajectories.
        wanted: Those that are needed, such as ``dict(weights=module_fingerprint(model))``.
        folder: Folder of the trajectories.

    Raises:
        TrajectoryError: One of them differs.
    """
    other = [
        f'{key} is {_short(settings.get(key))}, and {_short(value)} is needed'
        for key, value in wanted.items()
        if settings.get(key) != value
    ]
    if other:
        raise TrajectoryError(
            f'{folder} has the trajectories of another model or sampler: {"; ".join(other)}. Give the config, the '
            'checkpoint and the options with which they were generated, or generate them again'
        )


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 40 else f'{text[:13]}…'


def _numbers(path: Path, count: int) -> Collection[int]:
    """Numbers of the images of a file with so many trajectories."""
    start, stop = (int(number) for number in path.stem.split('-'))
    if stop - start + 1 != count:
        raise TrajectoryError(f'{path} has {count} trajectories, and its name is that of {stop - start + 1}')
    return range(start, stop + 1)


def _read(path: Path) -> tuple[Trajectories, dict[str, Any]]:
    """Read a file, and its settings."""
    try:
        content = load_checkpoint_file(path)
        tensors: dict[str, Tensor] = content['state_dict']
        settings = json.loads(content['meta'][_SETTINGS])
        found = Trajectories(
            tensors['ids'].long(), tensors['kept_at'].long(), tensors['log_probs'], tensors['labels'].long()
        )
    except (CheckpointError, KeyError, ValueError) as error:
        raise TrajectoryError(
            f'{path} cannot be read as trajectories ({error}). Remove it, and run the command that wrote it again: it '
            'writes what is missing'
        ) from error
    return found, settings
