# Copyright (c) addp_mm contributors. Apache-2.0.
"""The measurements of ``addp benchmark-speed``, each a command of its own."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import addp_mm
from addp_mm.benchmark.step import Step
from addp_mm.config.shipped import tool_path
from addp_mm.report.machine import cores, machine_class, versions

ADDP = 'addp_vit-base-p16_8xb64-accum8-bf16-coslr-1600e_in1k-256px'
NANO = (
    'vq-tokenizer_nano-p8_2xb8-fp32-12k_fashion-scenes-64px',
    'token-predictor_nano-p8_from-ids_2xb16-fp32-8k_fashion-scenes-64px',
    'addp_vit-nano-p8_2xb16-fp32-4k_fashion-scenes-64px',
)
NANO_ADDP = NANO[-1]
_BOTH = ('--precision', 'float32', 'bfloat16')
_SMALL = ('--made-up-size', '64', '64', '--batch-size', '2', '--batches', '2', '--num-workers', '0')
_FEW = ('--img-size', '64', '128', '--depth', '1', '2', '--batch-size', '1', '2')
_TOOLS = dict(
    pretraining='pretraining_step',
    nano='pretraining_step',
    sampling='sampling_run',
    backbone='backbone_time',
    operators='operators',
    data='data_pipeline',
    growth='cost_growth',
    lists='data_growth',
    communication='communication',
)
NAMES = tuple(_TOOLS)


@dataclass(frozen=True)
class Options:
    """What a run of the command measures.

    Args:
        device: Name of the device.
        rounds: Timed steps of each case; None: as each tool has it.
        published: Folder of the published code; None: it is not measured.
        quick: Whether small models and sizes are measured, to try the command.
    """

    device: str
    rounds: int | None = None
    published: str | None = None
    quick: bool = False


def speed_steps(options: Options, folder: Path) -> dict[str, Step]:
    """All measurements by their names.

    Args:
        options: How.
        folder: Folder of the results.
    """
    make = _Maker(options, folder)
    addp = NANO_ADDP if options.quick else ADDP
    published = ('--published', options.published) if options.published else ()
    sampling = ('--num-images', '2', '--steps', '2' if options.quick else '8')
    backbone = ('--arch', 'tiny', '--img-size', '64') if options.quick else ()
    steps = [
        make('pretraining', 'A training step of ADDP', (addp, '--batch-size', '2', *_BOTH, *published)),
        make('nano', 'Training steps of the nano models', (*NANO, '--img-size', '64', '64')),
        make('sampling', 'A sampling run', (addp, *_BOTH, *sampling, *published)),
        make('backbone', 'The backbone against timm and mmpretrain', backbone),
        make('operators', 'Operators against torchvision', ('--scale', '0.05') if options.quick else ()),
        make('data', 'The data pipeline', (addp, '--made-up', *(('4', *_SMALL) if options.quick else _large_data()))),
        make('growth', 'How the cost of a step grows', (*_figure(folder, 'growth'), *(_FEW if options.quick else ()))),
        make(
            'lists',
            'Data sets of many images',
            (*_figure(folder, 'lists'), *(('--counts', '100', '1000') if options.quick else ())),
            timed=False,
        ),
        make('communication', 'What the processes exchange', (addp, '--check'), timed=False),
    ]
    return {step.name: step for step in steps}


def _large_data() -> tuple[str, ...]:
    """Many files, read by one core and by all."""
    return '2560', '--cores', *sorted({'1', str(cores())}, key=int)


def _figure(folder: Path, name: str) -> tuple[str, ...]:
    return '--figure', str(folder / f'{name}.svg')


class _Maker:
    """Makes the step of a tool."""

    def __init__(self, options: Options, folder: Path) -> None:
        self.options, self.folder = options, folder

    def __call__(self, name: str, title: str, arguments: Sequence[str], timed: bool = True) -> Step:
        out = self.folder / f'{name}.json'
        how = self._timing() if timed else ()
        command = (f'tools/benchmarks/{_TOOLS[name]}.py', *arguments, '--out', str(out), *how)
        facts = (machine_class(), *(f'{package} {version}' for package, version in versions().items()))
        return Step(name, title, command, (out,), inputs=self._code, facts=facts)

    def _timing(self) -> list[str]:
        options = self.options
        how = ['--device', options.device]
        how += ['--rounds', str(options.rounds)] if options.rounds else []
        return how + (['--matrix-side', '64'] if options.quick else [])

    @cached_property
    def _code(self) -> tuple[Path, ...]:
        """All source files that are measured: a change of one repeats the measurements."""
        folders = [Path(addp_mm.__file__).parent, Path(tool_path('benchmarks/operators.py')).parent]
        folders += [Path(self.options.published)] if self.options.published else []
        return tuple(sorted(path for folder in folders for path in folder.rglob('*.py')))
