# Copyright (c) addp_mm contributors. Apache-2.0.
"""Save the failed iterations of a run, a few of them with the weights."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mmengine import dist
from mmengine.runner import Runner
from torch import Tensor

from addp_mm.engine.guards.buffers import BufferCopy
from addp_mm.engine.guards.failed_batch import Failure, event_path, iteration_data, write_event
from addp_mm.engine.strategies.sharded import is_sharded
from addp_mm.engine.unwrap import bare_model
from addp_mm.errors import first_few

_WITHOUT_WEIGHTS = 20  # a run that skips often must not fill the disk with batches


class SavedEvents:
    """Saves failed iterations and describes them.

    Each rank that caused the failure saves its batch; all ranks do if the cause is not known. The
    first of them saves the weights.

    Args:
        max_weights: Number of failures that are saved with the weights.
    """

    def __init__(self, max_weights: int) -> None:
        self.max_weights = max_weights
        self.count = 0

    def save(self, runner: Runner, failure: Failure, about: Mapping[str, Any], batch: Any, buffers: BufferCopy) -> str:
        """Save the iteration. All ranks call it.

        Args:
            runner: A runner in training.
            failure: What went wrong.
            about: ``seed``, ``names`` of the samples, ``outputs`` and ``gradients`` of this rank.
            batch: The batch of the data loader.
            buffers: The model's buffers before the iteration.

        Returns:
            What went wrong, with iteration, ranks, samples and files; the same on all ranks.
        """
        everyone = dist.all_gather_object(dict(about, caused=failure.caused_here))
        ranks = [rank for rank, one in enumerate(everyone) if one['caused']]
        if not ranks:
            ranks = list(range(len(everyone))) if failure.kind == 'gradients' else [0]
        paths = [event_path(runner.work_dir, runner.iter + 1, rank) for rank in ranks]
        kept = self.count < self.max_weights + _WITHOUT_WEIGHTS
        if kept and dist.get_rank() in ranks:
            number = ranks.index(dist.get_rank())
            data = dict(iteration_data(runner, batch), iteration=runner.iter + 1, rank=dist.get_rank(), **about)
            weights: Mapping[str, Tensor] | str = paths[0].name
            if self.count >= self.max_weights or is_sharded(runner.model):
                weights = ''
            elif number == 0:
                weights = buffers.before(bare_model(runner).state_dict())
            try:
                write_event(paths[number], failure, data, weights)
            except OSError as error:  # the failure itself is what matters
                runner.logger.warning(f'the failed batch was not saved: {error}')
        self.count += 1
        where = f'saved in {first_few(paths, 2)}' if kept else f'not saved, as {self.count - 1} were before'
        return f'{_description(runner.iter + 1, failure, ranks, everyone)}; the batch was {where}'

    def state(self) -> int:
        """State for a checkpoint: the number of failures."""
        return self.count

    def load(self, state: int) -> None:
        """Continue from :meth:`state`; failures after the checkpoint still count."""
        self.count = max(self.count, state)


def _description(iteration: int, failure: Failure, ranks: list[int], everyone: list[dict]) -> str:
    of_batch = failure.kind in ('loss', 'gradients')
    parts = []
    for rank in ranks:
        values = [f'{name} {value:.4g}' for name, value in everyone[rank]['outputs'].items()]
        head = f'rank {rank}: ' if len(everyone) > 1 else ''
        names = f'; samples {first_few(everyone[rank]["names"], 3)}' if of_batch and everyone[rank]['names'] else ''
        parts.append(f'{head}{first_few(values)}{names}')
    gradients = list(dict.fromkeys(name for one in everyone for name in one['gradients']))
    of_them = f' ({first_few(gradients, 3)})' if gradients and failure.kind == 'gradients' else ''
    return f'training failed at iteration {iteration} ({first_few(parts, 3, " | ")}): {failure.reason}{of_them}'
