# Copyright (c) addp_mm contributors. Apache-2.0.
"""Measure training and inference of one or more configs: time, images per second, peak memory.

Images are synthetic and weights random; no data and no checkpoint is read. Each config keeps its
own optimizer wrapper, with one update in a training step. Inference has the same precision, and
includes the post-processing. The configs take turns, so that changes in the speed of the machine
affect all of them.
"""

import argparse
import statistics
from pathlib import Path

from addp_mm.cli_options import ToolParser, add_cfg_options, add_device_option, add_renamed, number

MODES = ('inference', 'training')


def parse_args(argv=None):
    """Parse the command line."""
    parser = ToolParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('configs', nargs='+', metavar='CONFIG', help='path of a config file')
    parser.add_argument(
        '--mode',
        nargs='+',
        action='extend',
        choices=MODES,
        help='what to measure: inference comes before training [training]',
    )
    parser.add_argument('--batch-size', type=number(int, 1), help="images in a step [the config's on one GPU]")
    parser.add_argument(
        '--img-size', type=number(int, 1), nargs=2, metavar=('HEIGHT', 'WIDTH'), help='pixels [as in training]'
    )
    parser.add_argument('--rounds', type=number(int, 1), default=3, help='turns of each config [3]')
    parser.add_argument('--steps', type=number(int, 1), default=10, help='timed steps in a turn [10]')
    parser.add_argument('--warmup', type=number(int, 0), default=3, help='untimed steps before each turn [3]')
    add_device_option(parser)
    parser.add_argument('--seed', type=number(int, 0, 2**64 - 1), default=0, help='seed of weights and dropout [0]')
    parser.add_argument('--out', type=Path, metavar='FILE.json', help='write the time of every step to this file, too')
    add_cfg_options(parser, 'every config')
    add_renamed(parser, old='--shape', new='--img-size')
    add_renamed(parser, old='--batch', new='--batch-size')
    return parser.parse_args(argv)


class Contestant:
    """A config's steps: their times in seconds and their peak memory in bytes, by mode."""

    def __init__(self, path: str, args) -> None:
        from addp_mm.analysis import TrainingStep
        from addp_mm.checks.argument_kinds import argument_kinds
        from addp_mm.config.config_file import load_config

        self.name = path
        img_size = tuple(args.img_size) if args.img_size else None
        cfg = load_config(path, args.cfg_options, argument_kinds)
        self.step = TrainingStep(cfg, args.batch_size, img_size, args.device)
        self.times: dict[str, list[float]] = {}
        self.peaks: dict[str, int | None] = {}

    def case(self, mode: str):
        """The steps of a mode, to be timed in turns."""
        from addp_mm.benchmark.paired_times import Case

        run = self.step if mode == 'training' else self.step.predict
        return Case(self.name, run, begin=lambda: self._begin(mode), end=lambda: self._end(mode))

    def _begin(self, mode: str) -> None:
        from addp_mm.devices import memory_statistics

        self.step.model.train(mode == 'training')
        memory = memory_statistics(self.step.device)
        if memory is not None:
            memory.reset_peak_memory_stats(self.step.device)

    def _end(self, mode: str) -> None:
        peak, before = self.step.peak_memory(), self.peaks.get(mode)
        self.peaks[mode] = peak if before is None or peak is None else max(before, peak)

    def report(self, mode: str) -> str:
        """A line of the table."""
        step, median, spread = self.step, statistics.median(self.times[mode]), statistics.pstdev(self.times[mode])
        peak = self.peaks[mode]
        return (
            f'| {self.name} | {step.batch_size} x {step.img_size[0]} x {step.img_size[1]} | {step.precision} | '
            f'{median * 1e3:.1f} ± {spread * 1e3:.1f} | {step.batch_size / median:.2f} | '
            f'{"not measured" if peak is None else f"{peak / 2**30:.2f}"} |'
        )

    def record(self) -> dict:
        """Everything that was measured."""
        step = self.step
        modes = {mode: dict(seconds=times, peak_bytes=self.peaks[mode]) for mode, times in self.times.items()}
        size = dict(batch_size=step.batch_size, img_size=list(step.img_size), precision=step.precision)
        return dict(config=self.name, **size, modes=modes)


def measure(args) -> tuple[list[str], list[Contestant]]:
    """The modes, and the configs with their measurements."""
    import torch

    from addp_mm.benchmark.paired_times import time_in_turns
    from addp_mm.engine.device import choose_device

    args.device = choose_device(args.device)
    torch.manual_seed(args.seed)
    modes = [mode for mode in MODES if mode in (args.mode or ['training'])]
    contestants = [Contestant(path, args) for path in args.configs]
    for mode in modes:
        cases = [contestant.case(mode) for contestant in contestants]
        found = time_in_turns(cases, args.device, args.rounds, args.steps, args.warmup)
        for contestant, times in zip(contestants, found, strict=True):
            contestant.times[mode] = times.seconds
    return modes, contestants


def main(argv=None):
    """Measure, and print the table."""
    args = parse_args(argv)
    import torch

    from addp_mm.checkpoints.atomic_write import write_json
    from addp_mm.config.paths import require_writable
    from addp_mm.errors import exit_on_interrupt, exit_on_user_error
    from addp_mm.report.machine import machine_class

    with exit_on_interrupt('nothing was written'), exit_on_user_error():
        if args.out is not None:
            require_writable(args.out, '--out')
        modes, contestants = measure(args)
    about = f'{args.device}: {machine_class()}; torch {torch.__version__}'
    print(f'{about}; median ± standard deviation of {args.rounds * args.steps} steps')
    if len(contestants) > 1:
        print('The peak memory includes the other configs: to compare memory, run one config at a time.')
    if args.device.type == 'cpu':
        print('The peak memory is the resident memory of this process, with the interpreter and all libraries.')
    for mode in modes:
        if len(modes) > 1:
            print(f'{mode}:')
        print('| config | images x height x width | precision | ms per step | images/s | peak memory, GiB |')
        print('|---|---|---|---|---|---|')
        for contestant in contestants:
            print(contestant.report(mode))
    if args.out is not None:
        write_json(args.out, dict(device=str(args.device), configs=[one.record() for one in contestants]))


if __name__ == '__main__':
    main()
