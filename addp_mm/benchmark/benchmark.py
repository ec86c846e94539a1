# Copyright (c) addp_mm contributors. Apache-2.0.
"""Runs a benchmark: counts, times and trains its contestants, and writes the reports."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from mmengine.config import Config

from addp_mm.benchmark.contestants import Contestant, common_size
from addp_mm.benchmark.finetuning import FineTuning
from addp_mm.benchmark.measuring import Group, Timing
from addp_mm.benchmark.page import build_page
from addp_mm.benchmark.results import Row, Score
from addp_mm.benchmark.step_runner import Done, StepError, StepRunner
from addp_mm.benchmark.tables import About, as_csv, as_json, as_markdown, groups
from addp_mm.benchmark.tasks import DATA
from addp_mm.checkpoints.atomic_write import write_json, write_text
from addp_mm.errors import UserError
from addp_mm.report.logs import LogError
from addp_mm.report.machine import cores

# weights and two moments of AdamW, in float32
_CHECKPOINT_BYTES = 12


class DiskError(UserError, OSError):
    """The disk has not enough room for the checkpoints."""


@dataclass(frozen=True)
class Training:
    """How the contestants are trained.

    Args:
        seeds: The seeds.
        max_iters: Iterations. Defaults to None: those of the configs.
    """

    seeds: Sequence[int]
    max_iters: int | None = None


class Benchmark:
    """A benchmark in a work dir. Finished measurements in it are not repeated.

    Args:
        contestants: The contestants.
        work_dir: The folder.
        jobs: Trainings that run at once. Timed steps run alone. Defaults to 1.
        pass_fds: Open files that the commands inherit. Defaults to (): none.
    """

    def __init__(
        self, contestants: Sequence[Contestant], work_dir: Path, jobs: int = 1, pass_fds: Sequence[int] = ()
    ) -> None:
        self.work_dir, self._jobs, self._pass_fds = work_dir, jobs, pass_fds
        self.rows = [Row(contestant) for contestant in contestants]
        self._configs: dict[str, Config] = {}
        for row in self.rows:
            if row.contestant.failure:
                row.failures.append(row.contestant.failure)
                continue
            try:
                self._configs[row.contestant.name] = row.contestant.load()
            except UserError as error:
                row.failures.append(str(error))

    def check_data(self) -> None:
        """Check that the data of every contestant are there.

        Raises:
            ConfigError: A folder is missing.
        """
        for row in self._loaded():
            one = row.contestant
            DATA[one.data].require(one.data_folder(self._configs[one.name]))

    def measure(self, timing: Timing, batch_size: int | None = None, img_size: tuple[int, int] | None = None) -> None:
        """Count parameters and operations; time the steps.

        Args:
            timing: How.
            batch_size: Images in a step. Defaults to None: as in the configs.
            img_size: Height and width in pixels. Defaults to None: as in the configs.

        Raises:
            ConfigError: The configs of a data set and task have other images.
        """
        by_row: list[tuple[Row, Group]] = []
        for rows in groups(self._loaded()).values():
            configs = [(row.contestant, self._configs[row.contestant.name]) for row in rows]
            group = Group([row.contestant for row in rows], *common_size(configs, batch_size, img_size))
            for row in rows:
                row.batch_size, row.img_size = group.batch_size, group.img_size
                by_row.append((row, group))
        self._count(by_row)
        self._time(by_row, timing)

    def _count(self, by_row: Sequence[tuple[Row, Group]]) -> None:
        steps = [(row, group.count(row.contestant, self.work_dir / 'results')) for row, group in by_row]
        done = self._runner(self._jobs).run_all([step for _, step in steps])
        for row, step in steps:
            if _succeeded(done[step.name], row):
                row.add_count(step.outputs[0])

    def _time(self, by_row: Sequence[tuple[Row, Group]], timing: Timing) -> None:
        turns: dict[str, list[Path]] = {row.contestant.name: [] for row, _ in by_row}
        going = list(by_row)
        for index in range(timing.repeats):
            folder = self.work_dir / 'results'
            steps = [(row, group.turn(row.contestant, index, timing, folder)) for row, group in going]
            done = self._runner(1).run_all([step for _, step in steps])
            succeeded = {row.contestant.name for row, step in steps if _succeeded(done[step.name], row)}
            for row, step in steps:
                if row.contestant.name in succeeded:
                    turns[row.contestant.name].append(step.outputs[0])
            going = [(row, group) for row, group in going if row.contestant.name in succeeded]
        for row, _ in by_row:
            row.add_turns(turns[row.contestant.name])

    def train(self, training: Training) -> None:
        """Train and test every contestant with every seed.

        Args:
            training: How.

        Raises:
            DiskError: The disk has not enough room for the checkpoints.
        """
        runs = self._runs(training)
        self._check_disk([(row, run) for row, run in runs if not run.metrics_file.is_file()])
        steps = [step for _, run in runs for step in run.steps()]
        done = self._runner(self._jobs).run_all(steps)
        scores: dict[str, dict[str, dict[int, float]]] = {}
        for row, run in runs:
            if not all(_succeeded(done[step.name], row) for step in run.steps()):
                continue
            try:
                for title, value in run.results().items():
                    scores.setdefault(row.contestant.name, {}).setdefault(title, {})[run.seed] = value
            except LogError as error:
                row.failures.append(str(error))
        for row in self.rows:
            row.scores = {title: Score(values) for title, values in scores.get(row.contestant.name, {}).items()}

    def _runs(self, training: Training) -> list[tuple[Row, FineTuning]]:
        """All trainings; those with the first seed come first."""
        runs = []
        for seed in training.seeds:
            for row in self._loaded():
                cfg = self._configs[row.contestant.name]
                try:
                    run = row.contestant.finetuning(cfg, seed, self.work_dir / 'runs', training.max_iters)
                except UserError as error:
                    _note(row, str(error))
                else:
                    runs.append((row, run))
        return runs

    def _check_disk(self, runs: Sequence[tuple[Row, FineTuning]]) -> None:
        needed = sum(_CHECKPOINT_BYTES * row.parameters.get('model', 0) for row, _ in runs)
        free = shutil.disk_usage(self.work_dir).free
        if needed > free:
            raise DiskError(
                f'{self.work_dir}: the checkpoints of {len(runs)} trainings need {needed / 1e9:.1f} GB, but the disk '
                f'has {free / 1e9:.1f} GB. Free some, or give another --work-dir'
            )

    def write(self, about: About) -> list[Path]:
        """Write the reports; returns their paths."""
        paths = [self.work_dir / f'benchmark.{suffix}' for suffix in ('json', 'csv', 'md', 'html')]
        write_json(paths[0], as_json(self.rows, about))
        write_text(paths[1], as_csv(self.rows))
        write_text(paths[2], as_markdown(self.rows, about))
        build_page(self.rows, about).write(paths[3])
        return paths

    def _runner(self, jobs: int) -> StepRunner:
        return StepRunner(self.work_dir, jobs, max(1, cores() // jobs), self._pass_fds)

    def _loaded(self) -> list[Row]:
        """The rows whose configs could be read."""
        return [row for row in self.rows if row.contestant.name in self._configs]


def _succeeded(result: Done | StepError, row: Row) -> bool:
    """Whether a step ended well; otherwise its cause is added to the row."""
    if isinstance(result, Done):
        return True
    _note(row, result.cause)
    return False


def _note(row: Row, failure: str) -> None:
    if failure not in row.failures:
        row.failures.append(failure)
