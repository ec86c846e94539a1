# Copyright (c) addp_mm contributors. Apache-2.0.
"""The measurements of a contestant: counted operations, and turns of timed steps."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from addp_mm.benchmark.contestants import Contestant
from addp_mm.benchmark.step import Step
from addp_mm.report.machine import machine_class, versions


@dataclass(frozen=True)
class Timing:
    """How speed and memory are measured.

    Args:
        repeats: Turns of each contestant.
        steps: Timed steps in a turn.
        warmup: Untimed steps before them.
        device: Name of the device.
    """

    repeats: int
    steps: int
    warmup: int
    device: str


@dataclass(frozen=True)
class Group:
    """The contestants of one data set and task, which are measured with the same images.

    Args:
        contestants: The contestants.
        batch_size: Images in a step.
        img_size: Height and width in pixels.
    """

    contestants: Sequence[Contestant]
    batch_size: int
    img_size: tuple[int, int]

    def count(self, contestant: Contestant, folder: Path) -> Step:
        """Count parameters and operations of one image.

        Args:
            contestant: The contestant.
            folder: Folder of the results.
        """
        out = folder / f'{contestant.name}_count.json'
        command = ('tools/analysis_tools/get_flops.py', str(contestant.config), '--depth', '1', *self._size)
        return Step(
            f'{contestant.name}_count',
            f'Count {_title(contestant)}',
            (*command, '--out', str(out), *_cfg_options(contestant)),
            (out,),
            configs=(contestant.config,),
        )

    def turn(self, contestant: Contestant, index: int, timing: Timing, folder: Path) -> Step:
        """Time some steps of a contestant.

        Args:
            contestant: The contestant.
            index: Number of the turn, from 0.
            timing: How.
            folder: Folder of the results.
        """
        name = f'{contestant.name}_turn{index}'
        out = folder / f'{name}.json'
        options = dict(batch_size=self.batch_size, rounds=1, steps=timing.steps, warmup=timing.warmup, seed=index)
        given = [word for key, value in options.items() for word in (f'--{key.replace("_", "-")}', str(value))]
        command = ('tools/benchmarks/step_time.py', str(contestant.config), '--mode', 'inference', 'training', *given)
        return Step(
            name,
            f'Time {_title(contestant)}, turn {index + 1} of {timing.repeats}',
            (*command, *self._size, '--device', timing.device, '--out', str(out), *_cfg_options(contestant)),
            (out,),
            configs=(contestant.config,),
            facts=(machine_class(), f'torch {versions()["torch"]}'),
        )

    @property
    def _size(self) -> tuple[str, ...]:
        return ('--img-size', *map(str, self.img_size))


def _title(contestant: Contestant) -> str:
    return f'{contestant.backbone} ({contestant.data}, {contestant.task})'


def _cfg_options(contestant: Contestant) -> tuple[str, ...]:
    return ('--cfg-options', *contestant.options) if contestant.options else ()
