# Copyright (c) addp_mm contributors. Apache-2.0.
"""Find the checkpoint from which a training continues; one that cannot be resumed is not used."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from mmengine.runner import find_latest_checkpoint

from addp_mm.checkpoints.errors import CheckpointError
from addp_mm.checkpoints.finite import finite_by_name, refuse_non_finite
from addp_mm.checkpoints.reading import damage, mapped
from addp_mm.checks.weights import DEEPSPEED_FILES
from addp_mm.engine.process_group import is_first_process

_NUMBERED = r'(?:epoch|iter)_(\d+)(?:\.pth)?'


def latest_checkpoint(work_dir: str) -> str | None:
    """The checkpoint that the file ``last_checkpoint`` names, or the newest one that is whole.

    If the work dir was moved, it is the checkpoint of that name in the work dir. If the checkpoint
    does not exist, is damaged or has weights that are NaN or Inf, a printed line says so, and the
    newest one before it is used. Without others it is the best one.

    Returns:
        The path; None if there is no checkpoint. A path that does not exist if
        ``last_checkpoint`` names one and there is no other.

    Raises:
        CheckpointError: No checkpoint can be resumed.
    """
    named = find_latest_checkpoint(work_dir)
    candidates = _candidates(Path(work_dir), named)
    said = []
    if not (named and Path(named).exists()):
        told = 'does not exist' if named is None else f'names {named or "nothing"}'
        said.append(f'last_checkpoint of {work_dir} {told}')
    for path in candidates:
        reason = _damage(path) or _failure(path)
        if reason is None:
            if said and is_first_process():
                print(f'--resume auto: {"; ".join(said)}; training continues from {path}')
            return str(path)
        said.append(reason.rstrip('.'))
    if not candidates:
        return named or None
    raise CheckpointError(
        f'--resume: {work_dir} has no checkpoint that can be resumed: {"; ".join(said)}. To start at the beginning, '
        'remove these files or choose another --work-dir'
    )


def require_whole(path: str, option: str) -> None:
    """Refuse a damaged checkpoint.

    Args:
        path: Checkpoint, or an address, which is not checked here.
        option: Name of the option in the error.

    Raises:
        CheckpointError: It is damaged. The message names the newest whole one in its folder.
    """
    reason = None if '://' in path else _damage(Path(path))
    if reason is None:
        return
    others = (one for one in _others(Path(path).parent, None) if one != Path(path) and _damage(one) is None)
    other = next(others, None)
    advice = f'The newest whole checkpoint beside it is {other}' if other else 'No other checkpoint beside it is whole'
    raise CheckpointError(f'{option} {reason} {advice}')


def _candidates(work_dir: Path, named: str | None) -> list[Path]:
    """The checkpoints that exist, in the order in which they are tried."""
    path = Path(named or '')
    first = [one for one in (path, work_dir / path.name) if named and one.exists()]
    number = re.search(r'(\d+)\D*$', path.name)
    folders = dict.fromkeys([*(one.parent for one in first), work_dir])
    others = (one for folder in folders for one in _others(folder, int(number[1]) if number else None))
    return list(dict.fromkeys([*first, *others]))


def _damage(path: Path) -> str | None:
    if path.is_dir() and any(path.glob(DEEPSPEED_FILES)):
        return None  # DeepSpeed reads its own files
    return damage(path)


def _failure(path: Path) -> str | None:
    """What is wrong with the weights of a checkpoint that is whole; the optimizer is not read."""
    checkpoint = {} if path.is_dir() else mapped(path)
    try:
        for key in ('state_dict', 'ema_state_dict'):
            weights = checkpoint.get(key, {})
            refuse_non_finite(weights, finite_by_name(weights), str(path))
    except CheckpointError as error:
        return str(error)
    return None


def _others(folder: Path, number: int | None) -> Iterator[Path]:
    """The checkpoints of a folder, the newest first, and the best ones after all others.

    Those after ``number`` may be of an earlier training in the folder: they come later.
    """
    found = list(folder.iterdir()) if folder.is_dir() else []
    for prefix in ('', 'best_.+_'):
        numbers = {path: int(match[1]) for path in found if (match := re.fullmatch(prefix + _NUMBERED, path.name))}
        yield from sorted(
            numbers, key=lambda path: (number is None or numbers[path] <= number, numbers[path]), reverse=True
        )
