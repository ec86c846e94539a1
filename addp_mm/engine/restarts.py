# Copyright (c) addp_mm contributors. Apache-2.0.
"""Continue from the last checkpoint when a launcher starts the processes again.

``python -m addp_mm.torchrun`` and ``tools/slurm_train.sh`` give each launch an id, in the
environment of the processes. The work dir holds the id of the launch that trains there.
"""

from __future__ import annotations

import json
import os
from pathlib import Path

from mmengine.config import Config

from addp_mm.checkpoints.atomic_write import write_json
from addp_mm.engine.latest_checkpoint import latest_checkpoint
from addp_mm.engine.process_group import attempt, is_first_process
from addp_mm.torchrun import LAUNCH

_FILE = 'restarts.json'
_ATTEMPT = 'ADDP_MM_ATTEMPT'  # of tools/slurm_train.sh, from 0; torchrun has its own


def resume_of_restart(cfg: Config, resume: str | None) -> str | None:
    """What ``--resume`` is in this attempt of a launcher.

    The first attempt does what the command line says, and notes the checkpoints of an earlier
    training in the work dir: a later attempt must not continue from them. ``--resume`` without a
    value continues from all of them, in each attempt.

    Args:
        cfg: The config, with ``work_dir``.
        resume: The ``--resume`` of the command line.

    Returns:
        ``resume``, or the path of the last checkpoint that an earlier attempt has written.
    """
    launch, number = _launch()
    if launch is None or resume == 'auto' or resume is None and cfg.get('resume') and not cfg.get('load_from'):
        return resume
    path = Path(cfg.work_dir) / _FILE
    noted = _read(path) if number else {}
    if noted.get('launch') != launch:  # also if the attempts before have ended before they noted anything
        if is_first_process():
            write_json(path, dict(launch=launch, old=_checkpoints(cfg.work_dir)))
        return resume
    new = [name for name, changed in _checkpoints(cfg.work_dir).items() if noted['old'].get(name) != changed]
    last = latest_checkpoint(cfg.work_dir) if new else None
    if last is None or Path(last).name not in new:
        _say(f'restart {number}: the attempts before have written no checkpoint; training starts as before')
        return resume
    _say(f'restart {number}: training continues from {last}')
    return last


def _launch() -> tuple[str | None, int]:
    """Id of the launch, the same in all its attempts and processes, and the number of the attempt.

    The id is None if there is only one attempt, or if it cannot be told from other launches.
    """
    launch = os.environ.get(LAUNCH)
    if 'TORCHELASTIC_RUN_ID' not in os.environ:
        return launch, int(os.environ.get(_ATTEMPT, 0))
    if os.environ.get('TORCHELASTIC_MAX_RESTARTS') == '0':
        return None, 0
    launch = launch or os.environ['TORCHELASTIC_RUN_ID']
    if launch != 'none':
        return launch, attempt()
    if attempt():  # torchrun on several machines
        _say(f'restart {attempt()}: training starts as before; with --rdzv-id=ID of this job it would continue')
    return None, attempt()


def _say(text: str) -> None:
    if is_first_process():
        print(text)


def _read(path: Path) -> dict:
    try:
        return json.loads(path.read_text())
    except (OSError, ValueError):
        return {}


def _checkpoints(work_dir: str) -> dict[str, int]:
    """Times of change of the checkpoints in a folder, in ns."""
    folder = Path(work_dir)
    names = ('epoch_*', 'iter_*', 'best_*')
    return {path.name: path.stat().st_mtime_ns for name in names for path in folder.glob(name)}
