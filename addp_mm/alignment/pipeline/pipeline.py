# Copyright (c) addp_mm contributors. Apache-2.0.
"""The alignment of a generator: all seeds, all methods, one comparison and one report."""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path

from mmengine.logging import MMLogger

from addp_mm.alignment.pipeline.check_plan import check_plan, precision_faults
from addp_mm.alignment.pipeline.clock import WorkClock
from addp_mm.alignment.pipeline.comparison_section import difference_table, summary_table
from addp_mm.alignment.pipeline.comparison_table import summary
from addp_mm.alignment.pipeline.page import write_page
from addp_mm.alignment.pipeline.plan import SAMPLES, Plan, read_plan
from addp_mm.alignment.pipeline.seed_run import SeedRun
from addp_mm.checkpoints.atomic_write import write_json
from addp_mm.cli_options import aligned
from addp_mm.config.paths import require_writable_folder
from addp_mm.engine.device import choose_device
from addp_mm.errors import ConfigError, UserError, first_few, suggest
from addp_mm.folder_lock import lock_folder
from addp_mm.stages.commands import Commands, Execute
from addp_mm.stages.stage import StateError
from addp_mm.stages.training import training_processes


class Pipeline:
    """One run of ``addp align``.

    Args:
        args: The command line.
        execute: Function that replaces the process of a command; see
            :class:`~addp_mm.stages.commands.Commands`. Defaults to None.
    """

    def __init__(self, args: Namespace, execute: Execute | None = None) -> None:
        self.args, self._execute = args, execute

    def run(self) -> None:
        """Run everything that is not done yet.

        Raises:
            UserError: Configs, options or work dir are wrong, or a command failed.
        """
        args = self.args
        # mmengine would log how each weight is loaded
        MMLogger.get_instance('addp_align', log_level='WARNING')
        plan = read_plan(args.configs, args.cfg_options)
        processes, device = training_processes(args.gpus), choose_device(None)
        contents = check_plan(plan, device)
        require_writable_folder(args.work_dir, f'--work-dir {args.work_dir}')

        def seed_run(seed: int, commands: Commands) -> SeedRun:
            return SeedRun(plan, contents, args.work_dir / f'seed_{seed}', seed, processes, commands, device)

        with ExitStack() as held:
            folders = [args.work_dir / f'seed_{seed}' for seed in args.seeds]
            locks = [held.enter_context(lock_folder(folder)).fileno() for folder in folders]
            commands = Commands(self._execute, locks, pipeline='addp align')
            runs = [seed_run(seed, commands) for seed in args.seeds]
            self._start(plan, runs)
            for fault in precision_faults(plan):
                print(f'warning: {fault}')
            clock = WorkClock({name: work for run in runs for name, work in run.work().items()})
            for run in runs:
                run.run(clock)
            others = [seed_run(seed, commands) for seed in _seeds_in(args.work_dir) if seed not in args.seeds]
            every = [*runs, *filter(_is_complete, others)]
            self._report(plan, sorted(every, key=lambda run: run.seed), commands)

    def _start(self, plan: Plan, runs: list[SeedRun]) -> None:
        again, parts = self.args.restart_from, runs[0].parts
        for name in again:
            if name not in parts:
                raise ConfigError(f'--restart-from {name}: choose from {", ".join(parts)}{suggest(name, parts)}')
        for run in runs:
            if changes := run.changes(run.depending_on(again)):
                raise StateError(_started_otherwise(run, changes, again))
        for run in runs:
            run.restart(again)
        print(
            f'{plan.num_images:,} samples, then {", ".join(runs[0].stages)}; {len(runs)} seed{"s" * (len(runs) > 1)}'
            if plan.holes is None
            else f'samples of {plan.holes.training.options[0]}, then {", ".join(runs[0].stages)}'
        )

    def _report(self, plan: Plan, runs: list[SeedRun], commands: Commands) -> None:
        measured = {name: [run.measured(name) for run in runs] for name in runs[0].contenders()}
        table = summary(measured)
        write_json(self.args.work_dir / 'comparison.json', table)
        path = self.args.work_dir / 'report.html'
        write_page(path, plan, runs, table, commands.ran)
        print(aligned(summary_table(table), numbers=True))
        print(f'\ndifferences from the base\n{aligned(difference_table(table), numbers=True)}\n')
        for run in runs:
            for fault in run.faults():
                print(f'warning: seed {run.seed}: {fault}')
        weights = [str(runs[0].stages[name].weights) for name in plan.methods]
        print(f'done. Report of seed {", ".join(str(run.seed) for run in runs)}: {path}\nweights: {", ".join(weights)}')


def _started_otherwise(run: SeedRun, changes: Mapping[str, list[str]], again: Sequence[str]) -> str:
    found = '; '.join(f'{name}: {first_few(own, 6, ", ")}' for name, own in changes.items())
    moved = any(change.startswith('folder ') for change in changes.get(SAMPLES, []))
    remedy = f'Move {run.folder.parent} back' if moved else 'Use the same options to continue'
    return (
        f'{run.folder} was started with other options: {found}. {remedy}, or run these parts again: --restart-from '
        f'{" ".join(dict.fromkeys([*again, *changes]))}'
    )


def _is_complete(run: SeedRun) -> bool:
    """Whether a seed of another command belongs in the report; says so if it does not."""
    try:
        if run.is_complete():
            return True
        reason = 'it has not ended, or has other options'
    except UserError as error:
        reason = str(error)
    print(f'{run.folder} is not in the report: {reason}')
    return False


def _seeds_in(work_dir: Path) -> list[int]:
    """Seeds of the runs in a work dir."""
    return [int(path.name[5:]) for path in work_dir.glob('seed_*') if path.name[5:].isdecimal()]
