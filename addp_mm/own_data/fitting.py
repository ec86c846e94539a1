# Copyright (c) addp_mm contributors. Apache-2.0.
"""Find the batch size of each stage for this machine, before the stage begins."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from typing import Any

from mmengine.config import Config

from addp_mm.checkpoints.atomic_write import write_json
from addp_mm.own_data.schedule import resolve_iterations
from addp_mm.own_data.stages import OWN, Request
from addp_mm.stages.commands import Commands

_BUILT_FROM = ('model', 'optim_wrapper', 'default_scope', 'custom_imports')


def try_stages(configs: Mapping[str, Config], request: Request, processes: int, commands: Commands) -> dict:
    """Build model and optimizer of each stage; run trial steps if the batch size is not given.

    Args:
        configs: Configs of the stages that have not begun.
        request: The user's settings.
        processes: Number of processes that train at once.
        commands: Runs addp_mm/own_data/trial_steps.py.

    Returns:
        By stage: ``parameters``; after trial steps also ``batch``, ``seconds`` of a step and
        ``mib``.

    Raises:
        CommandError: A stage cannot be built, or a single image does not fit into the memory.
    """
    if not configs:
        return {}
    asked: dict[str, dict[str, Any]] = {}
    for name, cfg in configs.items():
        parts = {key: value for key, value in cfg.to_dict().items() if key in _BUILT_FROM}
        asked[name] = dict(cfg=resolve_iterations(parts, cfg[OWN].max_iters), batch=None, shape=None)
        if 'batch_size' not in cfg.train_dataloader:
            shape = [request.found.channels, request.image_size, request.image_size]
            if name == 'predictor':
                shape = [cfg.model.predictor.num_tokens]
            asked[name].update(batch=max(1, -(-cfg[OWN].batch_size // processes)), shape=shape)
    spec, out = request.work_dir / 'trial_spec.json', request.work_dir / 'trial.json'
    write_json(spec, dict(stages=asked, processes=processes))
    command = [sys.executable, '-m', 'addp_mm.own_data.trial_steps', str(spec), str(out)]
    commands(command, request.work_dir / 'trial.log')
    return json.loads(out.read_text())


def fit_config(name: str, cfg: Config, tried: Mapping, processes: int) -> tuple[Config, dict]:
    """The config of the training: the batch fits into memory, and formulas are resolved.

    If an optimizer step needs more images than fit into memory, gradients are accumulated over
    several iterations, and ``max_iters`` is multiplied by their number.

    Args:
        name: Name of the stage.
        cfg: Config from :func:`~addp_mm.own_data.stages.build_configs`.
        tried: Result of :func:`try_stages` for this stage.
        processes: Number of processes that train at once.

    Returns:
        The config, and the values for later runs: ``batch`` of a process, ``max_iters``,
        ``accumulated`` iterations of a step, and those of ``tried``.
    """
    plain = cfg.to_dict()
    own, loader, loop = plain.pop(OWN), plain['train_dataloader'], plain['train_cfg']
    batch, counts = loader.get('batch_size'), 1
    if batch is None:
        batch = loader['batch_size'] = tried['batch']
        counts = max(1, round(own['batch_size'] / (batch * processes)))
        times = f' x {processes} processes' if processes > 1 else ''
        times += f' x {counts} iterations' if counts > 1 else ''
        print(f'{name}: {own["max_iters"]:,} steps of {batch}{times} images')
    if counts > 1:
        wrapper = plain['optim_wrapper']
        parts = [part for part in wrapper.values() if isinstance(part, dict) and 'optimizer' in part]
        for part in parts or [wrapper]:
            part['accumulative_counts'] = counts
    if loop['max_iters'] == 'max_iters':
        loop['max_iters'] = own['max_iters'] * counts
    max_iters = loop['max_iters']
    fitted = dict(tried, batch=batch, accumulated=counts, max_iters=max_iters)
    return Config(resolve_iterations(plain, max_iters)), fitted
