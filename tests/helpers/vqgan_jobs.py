# Copyright (c) addp_mm contributors. Apache-2.0.
"""A VQGAN on one and on two processes with the same images."""

from __future__ import annotations

from pathlib import Path

import mmpretrain.models  # noqa: F401  # once, before the forks
from mmengine import dist
from mmengine.model import MMDistributedDataParallel
from mmengine.optim import build_optim_wrapper

from helpers.jobs import in_one, in_two
from helpers.tiny_vqgan import OPTIM_WRAPPER, batch_of, build, images

SCHEDULE = dict(start=2, alone=1, ramp=2)
SGD = dict(optimizer=dict(type='SGD', lr=0.05))


def train(folder: Path, world_size: int, optimizer: dict | None = None, **settings) -> dict:
    """Six steps through every phase; each process has a part of the images. Weights and log."""
    if world_size > 1:
        dist.init_dist('pytorch', backend='gloo')
    model = build(schedule=SCHEDULE, **settings)
    parts = {
        name: dict(part, **(optimizer or {})) if isinstance(part, dict) else part
        for name, part in OPTIM_WRAPPER.items()
    }
    wrapper = build_optim_wrapper(model, parts)
    trained = (MMDistributedDataParallel(module=model) if world_size > 1 else model).train()
    logged = []
    for step in range(6):
        inputs = images(4, seed=step)[dist.get_rank() :: world_size]
        values = trained.train_step(batch_of(inputs), wrapper)
        logged.append({name: float(value) for name, value in values.items()})
    return dict(weights={name: value.clone() for name, value in model.state_dict().items()}, logged=logged)


def run(folder: Path) -> None:
    both = dict(optimizer=SGD, lecam_weight=0.1, r1_weight=0.1, r1_interval=2)
    in_one(folder, 'one', train, **both)
    in_two(folder, 'ddp', train, **both)
    ema = dict(optimizer=SGD, codebook='ema', code_gradient='rotation', ema_decay=0.8)
    in_one(folder, 'one_ema', train, **ema)
    in_two(folder, 'ddp_ema', train, **ema)
    in_two(folder, 'ddp_restart', train, quantize_from=1, restart_interval=2, restart_until=6)
