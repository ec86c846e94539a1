# Copyright (c) addp_mm contributors. Apache-2.0.
"""Rewards of generated images, and what is selected by them."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import groupby, islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from tqdm import tqdm

from addp_mm.alignment.figures import contact_sheet
from addp_mm.alignment.pairs import Selection, SelectionRule, questions_of, select, write_selection
from addp_mm.alignment.rewards import Reward, RewardError
from addp_mm.checkpoints.atomic_write import write_png
from addp_mm.generation.trajectories.trajectories import Trajectories, TrajectoryError
from addp_mm.generation.trajectories.trajectory_files import TrajectoryFiles

_BATCH, _SHOWN_PAIRS = 64, 24


@dataclass(frozen=True)
class Samples:
    """The images that a generator made, and how.

    Attributes:
        folder: Folder of ``addp generate --trajectories``.
        numbers: Numbers of the images.
        trajectories: Of the images.
        settings: Settings of the trajectories.
    """

    folder: Path
    numbers: list[int]
    trajectories: Trajectories
    settings: dict[str, Any]

    @classmethod
    def read(cls, folder: Path) -> Samples:
        """Read the trajectories of a folder of ``addp generate`` or ``addp inpaint``."""
        return cls(folder, *TrajectoryFiles(folder / 'trajectories').read())

    @cached_property
    def _names(self) -> dict[str, str]:
        """Image files of addp inpaint, by number; empty for addp generate."""
        path = self.folder / 'trajectories/images.json'
        return json.loads(path.read_text(encoding='utf-8')) if path.is_file() else {}

    def first(self, count: int) -> Samples:
        """The first samples.

        Raises:
            TrajectoryError: There are fewer.
        """
        if len(self.numbers) < count:
            raise TrajectoryError(f'{self.folder} has {len(self.numbers)} trajectories instead of {count}')
        return Samples(self.folder, self.numbers[:count], self.trajectories[:count], self.settings)

    def image(self, row: int) -> np.ndarray:
        """An image, uint8 (H, W, 3)."""
        key = f'{self.numbers[row]:06d}'
        with Image.open(self.folder / self._names.get(key, f'images/{key}.png')) as image:
            return np.asarray(image.convert('RGB'))

    def batches(self, title: str) -> Iterator[tuple[Tensor, Tensor]]:
        """Images of one size, uint8 (B, 3, H, W), and their classes, (B,), with a progress bar."""
        with tqdm(total=len(self.numbers), unit='img', desc=title) as bar:
            for start in range(0, len(self.numbers), _BATCH):
                labels = iter(self.trajectories.labels[start : start + _BATCH])
                images = map(self.image, range(start, min(start + _BATCH, len(self.numbers))))
                for _, group in groupby(images, key=lambda image: image.shape):
                    batch = np.stack(list(group))
                    yield torch.from_numpy(batch).permute(0, 3, 1, 2), torch.stack([*islice(labels, len(batch))])
                    bar.update(len(batch))


def rewards_of(reward: Reward, samples: Samples, title: str) -> list[float]:
    """Rewards of the samples; the title is shown beside the progress bar."""
    found: list[float] = []
    for images, labels in samples.batches(title):
        try:
            found += reward(images / 255, labels).tolist()
        except RewardError as error:
            first, last = (samples.numbers[len(found) + row] for row in (0, len(images) - 1))
            raise RewardError(f'{error} (images {first} to {last} of {samples.folder})') from error
    return found


def read_if(path: Path) -> dict[str, Any] | None:
    """A dict in a JSON file; None if the file is missing or damaged."""
    try:
        content = json.loads(path.read_text(encoding='utf-8'))
    except (OSError, ValueError):
        return None
    return content if isinstance(content, dict) else None


def read_if_made_from(path: Path, made_from: Any) -> dict[str, Any] | None:
    """A JSON file that was made from these inputs; None if it is missing, damaged or another's."""
    content = read_if(path)
    return content if content and content.get('made_from') == made_from else None


def select_samples(samples: Samples, rewards: Sequence[float], rule: SelectionRule, path: Path) -> Selection:
    """Select right and wrong samples, and write the selection.

    Args:
        samples: The samples.
        rewards: Of the images.
        rule: The rule.
        path: File of the selection.

    Raises:
        TrajectoryError: There is no pair.
    """
    trajectories = samples.trajectories
    selection = select(rewards, questions_of(trajectories), trajectories.ids, rule)
    write_selection(path, selection, samples.numbers, samples.settings, rule)
    return selection


def write_contact_sheet(samples: Samples, selection: Selection, path: Path) -> None:
    """Write some pairs side by side as PNG.

    Args:
        samples: The samples.
        selection: Its numbers are those of the images.
        path: The file.
    """
    row_of = {number: row for row, number in enumerate(samples.numbers)}
    shown = selection.pairs[:: max(1, len(selection.pairs) // _SHOWN_PAIRS)][:_SHOWN_PAIRS]
    images = tiles([samples.image(row_of[number]) for pair in shown for number in pair])
    write_png(path, Image.fromarray(contact_sheet(images[::2], images[1::2])))


def tiles(images: Sequence[np.ndarray]) -> list[np.ndarray]:
    """Images of the size of the first one, for a grid; those of another size are resized."""
    size = images[0].shape[1::-1]
    return [
        image if image.shape[1::-1] == size else np.asarray(Image.fromarray(image).resize(size)) for image in images
    ]
