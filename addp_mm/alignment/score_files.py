# Copyright (c) addp_mm contributors. Apache-2.0.
"""Token scores of stored trajectories, in a file beside them."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from addp_mm.checkpoints.atomic_write import write_safetensors
from addp_mm.checkpoints.errors import CheckpointError
from addp_mm.checkpoints.reading import load_checkpoint_file
from addp_mm.generation.trajectories.trajectories import TrajectoryError

_SETTINGS = 'settings'
_AGAIN = 'score the trajectories again (addp_mm.alignment.score_trajectories), and write the file again'


def write_scores(path: Path, scores: Tensor, numbers: Sequence[int], settings: Mapping[str, Any]) -> None:
    """Write scores.

    Args:
        path: The file.
        scores: (N, L), float32.
        numbers: Numbers of the images.
        settings: Settings of the trajectories.
    """
    tensors = dict(scores=scores.contiguous(), images=torch.tensor(numbers))
    write_safetensors(path, tensors, {_SETTINGS: json.dumps(settings, sort_keys=True)})


def read_scores(path: Path, numbers: Sequence[int], settings: Mapping[str, Any]) -> Tensor:
    """Read the scores of images.

    Args:
        path: The file.
        numbers: Numbers of the images.
        settings: Settings of the trajectories.

    Returns:
        (N, L), float32.

    Raises:
        TrajectoryError: The file cannot be read, or belongs to other trajectories.
    """
    try:
        content = load_checkpoint_file(path)
        scores, images = content['state_dict']['scores'], content['state_dict']['images'].tolist()
        own_settings = json.loads(content['meta'][_SETTINGS])
    except (CheckpointError, KeyError, ValueError) as error:
        raise TrajectoryError(f'{path} cannot be read as scores ({error}): {_AGAIN}') from error
    if own_settings != settings or not {*numbers} <= {*images}:
        raise TrajectoryError(f'{path} has the scores of other trajectories: {_AGAIN}')
    row_of = {image: row for row, image in enumerate(images)}
    return scores[[row_of[number] for number in numbers]]
