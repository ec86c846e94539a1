# Copyright (c) addp_mm contributors. Apache-2.0.
"""Trajectories as data sets: those that were chosen, and pairs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path

from torch import Tensor
from torch.utils.data import Dataset

from addp_mm.alignment.pairs import Selection, read_selection
from addp_mm.alignment.score_files import read_scores
from addp_mm.errors import ConfigError
from addp_mm.generation.trajectories.trajectories import Trajectories
from addp_mm.generation.trajectories.trajectory_files import TrajectoryFiles
from addp_mm.registry import DATASETS


class _TrajectoryDataset(Dataset):
    """Stored trajectories and what was selected of them.

    Args:
        trajectories: Folder that ``addp generate --trajectories`` wrote.
        selection: File that :func:`~addp_mm.alignment.pairs.write_selection` wrote for them.
        scores: File that :func:`~addp_mm.alignment.score_files.write_scores` wrote for them.
            Defaults to None: no scores.

    Raises:
        TrajectoryError: A file cannot be read, or they do not belong together.
    """

    def __init__(self, trajectories: str, selection: str, scores: str | None = None) -> None:
        self.folder = Path(trajectories)
        numbers, self.trajectories, settings = TrajectoryFiles(self.folder).read()
        self.row_of = {number: row for row, number in enumerate(numbers)}
        self.selection: Selection = read_selection(Path(selection), numbers, settings)
        self.scores: dict[int, Tensor] = {}
        if scores is not None:
            used = sorted({image for pair in self.selection.pairs for image in pair})
            self.scores = dict(zip(used, read_scores(Path(scores), used, settings), strict=True))

    def fields_of(self, image: int) -> dict[str, Tensor]:
        """The fields of one trajectory, (L,) each, and its scores (L,) if there are any."""
        row = self.row_of[image]
        item = {field.name: getattr(self.trajectories, field.name)[row] for field in fields(Trajectories)}
        return dict(item, scores=self.scores[image]) if self.scores else item


@DATASETS.register_module()
class ChosenTrajectories(_TrajectoryDataset):
    """The right or the wrong trajectories, for :class:`~addp_mm.alignment.LikelihoodTuning`.

    An item is ``dict(trajectories=…)``.

    Args:
        trajectories: Folder that ``addp generate --trajectories`` wrote.
        selection: File that :func:`~addp_mm.alignment.pairs.write_selection` wrote for them.
        which: 'right' or 'wrong'. Defaults to 'right'.

    Raises:
        ConfigError: ``which`` is unknown.
        TrajectoryError: A file cannot be read, they do not belong together, or there are none.
    """

    def __init__(self, trajectories: str, selection: str, which: str = 'right') -> None:
        super().__init__(trajectories, selection)
        if which not in ('right', 'wrong'):
            raise ConfigError(f"which must be 'right' or 'wrong', got {which!r}")
        self.images: Sequence[int] = getattr(self.selection, which)

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> dict[str, dict[str, Tensor]]:
        return dict(trajectories=self.fields_of(self.images[index]))


@DATASETS.register_module()
class PreferencePairs(_TrajectoryDataset):
    """Pairs of trajectories of one question, for :class:`~addp_mm.alignment.PreferenceTuning`.

    An item is ``dict(chosen=…, rejected=…)``.
    """

    def __len__(self) -> int:
        return len(self.selection.pairs)

    def __getitem__(self, index: int) -> dict[str, dict[str, Tensor]]:
        chosen, rejected = self.selection.pairs[index]
        return dict(chosen=self.fields_of(chosen), rejected=self.fields_of(rejected))
