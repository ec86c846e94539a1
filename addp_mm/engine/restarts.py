# Copyright (c) addp_mm contributors. Apache-2.0.
"""Continue from the last checkpoint when torchrun starts the processes again."""

from __future__ import annotations

import json
import os
from pathlib import Path

from mmengine.config import Config

from addp_mm.checkpoints.atomic_write import write_json
from addp_mm.engine.latest_checkpoint import latest_checkpoint
from addp_mm.engine.process_group import attempt

_FILE = 'restarts.json'


def resume_of_restart(cfg: Config, resume: str | None) -> str | None:
    """What ``--resume`` is in this attempt of a launcher.

    The first attempt does what the command line says. If it starts at the beginning, it notes the
    checkpoints of an earlier training in the work dir: a later attempt must not continue from them.

    Args:
        cfg: The config, with ``work_dir``.
        resume: The ``--resume`` of the command line.

    Returns:
        ``resume``, or the path of the last checkpoint that an earlier attempt has written.
    """
    if 'TORCHELASTIC_RUN_ID' not in os.environ or os.environ.get('TORCHELASTIC_MAX_RESTARTS') == '0':
        return resume
    path, run = Path(cfg.work_dir) / _FILE, os.environ['TORCHELASTIC_RUN_ID']
    noted = _read(path) if attempt() else {}
    if noted.get('run') != run:
        if os.environ.get('RANK') == '0':
            continues = resume == 'auto' or resume is None and cfg.get('resume') and not cfg.get('load_from')
            write_json(path, dict(run=run, old={} if continues else _checkpoints(cfg.work_dir)))
        return resume
    last = latest_checkpoint(cfg.work_dir)
    if last is None or noted['old'].get(Path(last).name) == _checkpoints(cfg.work_dir).get(Path(last).name, 0):
        print(f'restart {attempt()}: the attempts before have written no checkpoint; training starts as before')
        return resume
    print(f'restart {attempt()}: training continues from {last}')
    return last


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
