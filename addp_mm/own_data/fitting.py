# Copyright (c) addp_mm contributors. Apache-2.0.
"""Stages fitted to the machine before they are begun: each is built, most take trial steps, the disk is looked at."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Mapping
from pathlib import Path

from mmengine.config import Config

from addp_mm.errors import UserError
from addp_mm.own_data.commands import Commands
from addp_mm.own_data.schedule import accumulate
from addp_mm.own_data.stages import OWN, Request
from addp_mm.own_data.state import write_atomically

MIB = 2**20
# weights and two moments of the optimizer, and so many checkpoints at once
_STATES, _CHECKPOINTS = 3, 3
_BYTES_OF_LOGS = 200 * MIB
_BUILT_FROM = ('model', 'optim_wrapper', 'default_scope', 'custom_imports')


def try_stages(configs: Mapping[str, Config], request: Request, processes: int, commands: Commands) -> dict:
    """Build the model and the optimizer of each stage, and take steps where the batch is still to be found.

    Args:
        configs: Of the stages that are to be begun.
        request: What was asked for.
        processes: That train at once.
        commands: To run addp_mm/own_data/trial_steps.py with.

    Returns:
        By stage ``parameters``; and ``batch``, ``seconds`` of a step and ``mib`` where the batch
        was to be found.

    Raises:
        CommandFailed: A stage cannot be built, or a single image does not fit.
    """
    if not configs:
        return {}
    asked = {}
    for name, cfg in configs.items():
        asked[name] = dict(cfg={key: cfg[key] for key in _BUILT_FROM if key in cfg}, batch=None, shape=None)
        if OWN in cfg:
            asked[name].update(
                batch=max(1, -(-cfg[OWN].batch_size // processes)),
                shape=(
                    [cfg.model.predictor.num_tokens]
                    if name == 'predictor'
                    else [request.found.channels, request.image_size, request.image_size]
                ),
            )
    spec, out = request.work_dir / 'trial_spec.json', request.work_dir / 'trial.json'
    write_atomically(spec, json.dumps(dict(stages=asked, processes=processes)))
    command = [sys.executable, '-m', 'addp_mm.own_data.trial_steps', str(spec), str(out)]
    commands(command, request.work_dir / 'trial.log')
    return json.loads(out.read_text())


def check_disk(work_dir: Path, request: Request, tried: Mapping, freed: int = 0) -> None:
    """Find that there is room for checkpoints, ids and logs.

    Args:
        work_dir: Where they go.
        request: What was asked for.
        tried: Of :func:`try_stages`.
        freed: Bytes that are removed before.

    Raises:
        UserError: There is less.
    """
    num_tokens = (request.image_size // 8) ** 2
    needed = request.found.train_count * request.views * num_tokens * 2 * ('predictor' in tried)
    needed += sum(4 * tried[name]['parameters'] * _STATES * _CHECKPOINTS for name in tried)
    needed += _BYTES_OF_LOGS * bool(tried)
    free = shutil.disk_usage(work_dir).free + freed
    if needed > free:
        raise UserError(
            f'{work_dir}: checkpoints and ids take up to {needed / MIB:,.0f} MiB, and {free / MIB:,.0f} '
            'MiB are free. Choose a --work-dir on another disk, or fewer --views'
        )


def set_batch(name: str, cfg: Config, tried: Mapping, processes: int) -> dict:
    """Give a config, in place, the batch that fits.

    Args:
        name: Of the stage.
        cfg: Of :func:`~addp_mm.own_data.stages.build_configs`.
        tried: What :func:`try_stages` found out about it.
        processes: That train at once.

    Returns:
        What is worth knowing later: ``batch`` of a process, ``max_iters``, and what was found out.
    """
    own, fitted = cfg.pop(OWN, None), dict(tried)
    if own is None:
        fitted.update(batch=cfg.train_dataloader.batch_size)
    else:
        counts = max(1, round(own['batch_size'] / (fitted['batch'] * processes)))
        accumulate(cfg, fitted['batch'], counts)
        times = f' x {processes} processes' if processes > 1 else ''
        times += f' x {counts} passes' if counts > 1 else ''
        print(f'{name}: {own["max_iters"]:,} steps of {fitted["batch"]}{times} images')
        fitted.update(accumulated=counts)
    return dict(fitted, max_iters=cfg.train_cfg.max_iters)
