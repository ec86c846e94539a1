# Copyright (c) addp_mm contributors. Apache-2.0.
"""Train a stage by tools/train.py, and export its weights."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from addp_mm.errors import UserError
from addp_mm.stages.commands import TOOLS, Commands, Progress, tool
from addp_mm.stages.stage import Stage


def train(
    stage: Stage,
    max_iters: int,
    commands: Commands,
    progress: Progress,
    processes: int = 1,
    options: Sequence[str] = (),
) -> Path:
    """Run a training to its end, or resume it.

    Args:
        stage: The stage, prepared.
        max_iters: Its last iteration.
        commands: Runs the training.
        progress: See :class:`~addp_mm.stages.commands.Commands`.
        processes: Training processes, one on each GPU. Defaults to 1.
        options: ``KEY=VALUE`` that do not change the result. Defaults to (): none.

    Returns:
        The checkpoint of the last iteration.

    Raises:
        UserError: The training has failed, or has left no such checkpoint.
    """
    log = stage.folder / 'train.log'
    if stage.final_checkpoint(max_iters) is None:
        arguments = ['--work-dir', str(stage.run_dir), '--resume', 'auto']
        arguments += ['--cfg-options', *options] if options else []
        if processes > 1:
            command = ['bash', str(TOOLS / 'dist_train.sh'), str(stage.config), str(processes), *arguments]
        else:
            command = tool('train.py', stage.config, *arguments)
        commands(command, log, progress)
    checkpoint = stage.final_checkpoint(max_iters)
    if checkpoint is None:
        raise UserError(f'{stage.run_dir} has no checkpoint of iteration {max_iters}: see {log}')
    return checkpoint


def export(stage: Stage, checkpoint: Path, out: Path, commands: Commands, *options: str) -> None:
    """Write the weights of a checkpoint with the options of ``addp convert export``."""
    command = tool('model_converters/export_weights.py', checkpoint, out, *options, '--overwrite')
    commands(command, stage.folder / 'export.log')


def finish(stage: Stage, checkpoint: Path, prefix: str, commands: Commands) -> None:
    """Write the weights of the stage. They are written last: if they exist, the stage is done."""
    export(stage, checkpoint, stage.weights, commands, '--prefix', prefix, '--meta', f'fingerprint={stage.fingerprint}')


def training_processes(asked: int | None) -> int:
    """Number of training processes: those that were asked for, or one on each GPU.

    Raises:
        UserError: The machine has fewer GPUs.
    """
    import torch

    gpus = torch.accelerator.device_count()
    if asked and gpus and asked > gpus:
        raise UserError(f'--gpus {asked}: this machine has {gpus} GPUs')
    return asked or max(1, gpus)
