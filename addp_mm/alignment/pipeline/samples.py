# Copyright (c) addp_mm contributors. Apache-2.0.
"""Rewards of generated images, and what is selected by them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from tqdm import tqdm

from addp_mm.alignment.figures import contact_sheet
from addp_mm.alignment.pairs import Selection, SelectionRule, questions_of, select, write_selection
from addp_mm.alignment.rewards import Reward
from addp_mm.checkpoints.atomic_write import write_png
from addp_mm.generation.image_folder import ImageFiles
from addp_mm.generation.trajectories.trajectories import Trajectories
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
        """Read the trajectories of a folder."""
        return cls(folder, *TrajectoryFiles(folder / 'trajectories').read())

    def image(self, row: int) -> np.ndarray:
        """An image, uint8 (H, W, 3)."""
        return ImageFiles(self.folder / 'images').read(self.numbers[row])


def rewards_of(reward: Reward, folder: Path, numbers: Sequence[int], labels: Tensor, title: str) -> list[float]:
    """Rewards of the images of a folder.

    Args:
        reward: The reward.
        folder: Folder of ``addp generate``.
        numbers: Numbers of the images.
        labels: Their classes, (N,); -1 is "no class".
        title: Shown beside the progress bar.
    """
    files, found = ImageFiles(folder / 'images'), []
    with tqdm(total=len(numbers), unit='img', desc=title) as bar:
        for start in range(0, len(numbers), _BATCH):
            batch = np.stack([files.read(number) for number in numbers[start : start + _BATCH]])
            images = torch.from_numpy(batch).permute(0, 3, 1, 2).float() / 255
            found += reward(images, labels[start : start + _BATCH]).tolist()
            bar.update(len(batch))
    return found


def read_if_made_from(path: Path, made_from: Any) -> dict[str, Any] | None:
    """A JSON file that was made from these inputs; None if it is missing, damaged or another's."""
    try:
        content = json.loads(path.read_text(encoding='utf-8'))
    except (OSError, ValueError):
        return None
    return content if isinstance(content, dict) and content.get('made_from') == made_from else None


def select_samples(
    samples: Samples, rewards: Sequence[float], rule: SelectionRule, path: Path, sheet: Path
) -> Selection:
    """Select right and wrong samples, and write the selection and a contact sheet of its pairs.

    Args:
        samples: The samples.
        rewards: Of the images.
        rule: The rule.
        path: File of the selection.
        sheet: PNG file.

    Raises:
        TrajectoryError: There is no pair.
    """
    trajectories = samples.trajectories
    selection = select(rewards, questions_of(trajectories), trajectories.ids, rule)
    write_selection(path, selection, samples.numbers, samples.settings)
    shown = selection.pairs[:: max(1, len(selection.pairs) // _SHOWN_PAIRS)][:_SHOWN_PAIRS]
    chosen, rejected = ([samples.image(row) for row in side] for side in zip(*shown, strict=True))
    write_png(sheet, Image.fromarray(contact_sheet(chosen, rejected)))
    return selection
