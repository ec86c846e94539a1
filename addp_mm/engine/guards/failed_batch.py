# Copyright (c) addp_mm contributors. Apache-2.0.
"""The file of a failed iteration, from which it can be replayed."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from mmengine.runner import Runner
from torch import Tensor

from addp_mm.checkpoints.atomic_write import atomic_path
from addp_mm.checkpoints.errors import CheckpointError
from addp_mm.checkpoints.reading import load_checkpoint_file
from addp_mm.config.type_names import type_name
from addp_mm.engine.guards.plain_data import to_plain

FOLDER = 'failed_batches'
_FORMAT = 'addp_mm failed batch 1'
_FIELDS: dict[str, Any] = dict(
    batch=object, config=Mapping, precision=Mapping, iteration=int, rank=int, seed=(int, type(None)), names=list,
    outputs=Mapping, gradients=list, kind=str, reason=str, weights=(str, Mapping),
)  # fmt: skip
_ADVICE = 'The file was changed, or another version of addp_mm wrote it: give another one'


@dataclass(frozen=True)
class Failure:
    """What went wrong in an iteration.

    Attributes:
        kind: The detector: 'loss', 'gradients', 'weights', 'loss_scale', 'collapse', 'constant' or
            'codes'.
        reason: A description, the same on all ranks.
        caused_here: Whether this rank is known to have caused it. Defaults to False.
    """

    kind: str
    reason: str
    caused_here: bool = False


def event_path(work_dir: str | os.PathLike, iteration: int, rank: int) -> Path:
    """File of a failed iteration, counted from 1."""
    return Path(work_dir, FOLDER, f'iter_{iteration}_rank_{rank}.pth')


def iteration_data(runner: Runner, batch: Any) -> dict[str, Any]:
    """What an iteration computed from, besides weights and seed: batch, config and precision.

    Args:
        runner: A runner in training.
        batch: The batch of the data loader.
    """
    return dict(
        batch=to_plain(batch), config=to_plain(runner.cfg.to_dict()), precision=_precision(runner.optim_wrapper)
    )


def write_event(path: Path, failure: Failure, data: Mapping[str, Any], weights: Mapping[str, Tensor] | str) -> None:
    """Write a failed iteration, atomically.

    Args:
        path: The file.
        failure: What went wrong.
        data: From :func:`iteration_data`, with ``iteration``, ``rank``, ``seed`` (that of
            RandomStateHook, or None), ``names`` of the samples, ``outputs`` of the model and
            ``gradients`` (names of the non-finite ones).
        weights: State dict of the model, or the name of the file beside this one that has it; '' if
            none has.
    """
    state = weights if isinstance(weights, str) else to_plain(dict(weights))
    with atomic_path(path) as partial:
        torch.save(dict(data, format=_FORMAT, kind=failure.kind, reason=failure.reason, weights=state), partial)


def read_event(path: str | os.PathLike) -> dict:
    """Read a failed iteration without running code from the file; weights beside it are read, too.

    Returns:
        The data; ``weights`` is a state dict, or None if they were not saved.

    Raises:
        CheckpointNotFoundError: The file does not exist.
        CheckpointError: It is not such a file.
    """
    event = load_checkpoint_file(path)
    if event.get('format') != _FORMAT:
        raise CheckpointError(
            f'{os.fspath(path)} is not a failed batch: give a file of WORK_DIR/{FOLDER}, which TrainingGuardHook writes'
        )
    _check_fields(event, path)
    weights = event['weights']
    if isinstance(weights, str):
        beside = Path(path).parent / Path(weights).name
        weights = load_checkpoint_file(beside).get('weights') if weights and beside.is_file() else None
        if not isinstance(weights, Mapping | None):
            raise CheckpointError(f'{beside}: weights is not a state dict. {_ADVICE}')
    return dict(event, weights=weights)


def _check_fields(event: Mapping[str, Any], path: str | os.PathLike) -> None:
    wrong = [name for name, kind in _FIELDS.items() if name not in event or not isinstance(event[name], kind)]
    if not wrong and not {'dtype', 'loss_scale'} <= event['precision'].keys():
        wrong = ['precision']
    if wrong:
        raise CheckpointError(f'{os.fspath(path)}: missing or of another kind: {", ".join(wrong)}. {_ADVICE}')


def _precision(wrapper: Any) -> dict:
    """Types, dtype of autocast and loss scales of the optimizer wrappers."""
    parts = list(wrapper.values()) if hasattr(wrapper, 'values') else [wrapper]
    scaler = getattr(parts[0], 'loss_scaler', None)
    dtype = getattr(parts[0], 'cast_dtype', None)
    return dict(
        wrapper=type_name(type(parts[0])),
        dtype=None if dtype is None else str(dtype).removeprefix('torch.'),
        loss_scale=float(scaler.get_scale()) if scaler is not None and scaler.is_enabled() else None,
    )
