# Copyright (c) addp_mm contributors. Apache-2.0.
"""What a demo is made of: parts, each with its steps and the section of the report about them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from addp_mm.benchmark.step import Step
from addp_mm.report.logs import read_image
from addp_mm.report.page import Section

ROOT = Path(__file__).resolve().parents[2]
ASSETS = Path('addp_mm/assets')
ADDP_WEIGHTS = ASSETS / 'addp_nano-p8.safetensors'
# ADDP loads the other two files by the checkpoints of its config.
GENERATOR_WEIGHTS = (
    ADDP_WEIGHTS,
    ASSETS / 'token-predictor_nano-p8.safetensors',
    ASSETS / 'vq-tokenizer_nano-p8.safetensors',
)


@dataclass(frozen=True)
class Setting:
    """Where a demo writes, and its scenes.

    Args:
        folder: Work dir, relative to the repository.
        scenes: The step that writes FashionScenes.
        data_root: Folder of FashionScenes, relative to the repository.
        short: Whether it is a run of a few iterations and images.
    """

    folder: Path
    scenes: Step
    data_root: Path
    short: bool

    def scene_files(self, split: str) -> list[Path]:
        """The images of a split, in order."""
        return sorted((ROOT / self.data_root / 'scenes' / split).glob('*.png'))


@dataclass(frozen=True)
class Part:
    """A part of the demo.

    Args:
        steps: Its steps.
        section: Builds its section of the report, from the files of the steps.
    """

    steps: Sequence[Step]
    section: Callable[[], Section]


def open_rgb(path: Path) -> Image.Image:
    """An image, by its path relative to the repository.

    Raises:
        LogError: The file is missing.
    """
    return read_image(ROOT / path).convert('RGB')


def commands(steps: Sequence[Step]) -> list[str]:
    """The commands of steps as you type them."""
    return [step.shown for step in steps]
