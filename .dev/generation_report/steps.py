# Copyright (c) addp_mm contributors. Apache-2.0.
"""The measurements as steps, which are not repeated once they are done."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from addp_mm.benchmark.step import Step
from addp_mm.benchmark.step_runner import StepRunner
from addp_mm.checkpoints.atomic_write import write_json
from addp_mm.config.shipped import config_path
from addp_mm.evaluation import build_extractor
from addp_mm.report.machine import cores, machine_class
from generation_report.cells import Cell, Model
from generation_report.study import Study, weight_files


def measure(study: Study, jobs: int) -> None:
    """Measure everything that is not measured yet. The rates come first, with all cores.

    Args:
        study: What is measured.
        jobs: Number of other commands at once.
    """
    work_dir, load = study.commands.work_dir, os.getloadavg()[0]
    planned = Steps(study, {name: build_extractor(name).fingerprint for name in study.extractors})
    alone = StepRunner(work_dir, 1, cores())
    done = alone.run(planned.rates())
    if not all(one.skipped for one in done.values()):
        write_json(study.load_file, load)
    alone.run(planned.search())
    StepRunner(work_dir, jobs, max(1, cores() // jobs)).run(planned.cells())  # one line needs the search


@dataclass(frozen=True)
class Steps:
    """The steps of a study.

    Args:
        study: What is measured.
        fingerprints: Fingerprint of each network of features.
    """

    study: Study
    fingerprints: dict[str, str]

    def rates(self) -> list[Step]:
        """Measure the rates. All lines and numbers of steps take turns."""
        study, facts = self.study, (machine_class(), f'{self.study.threads} threads')
        steps = []
        for turn in range(study.extent.turns):
            for line, count in study.timed():
                title = f'Time {line.title}, {count} steps, turn {turn + 1} of {study.extent.turns}'
                name, out = study.rate_names(line, count)[turn], study.commands.timing_folder(line, count, turn)
                command = study.commands.time(line, count, turn)
                steps.append(
                    _generation(name, title, command, (out / 'grid.png',), line.model, folder=out, facts=facts)
                )
        return steps

    def search(self) -> list[Step]:
        """Search a schedule, unless the study has no search."""
        study, extractor = self.study, self.study.extractors[0]
        if not study.extent.trials:
            return []
        out = study.commands.trials
        command = study.commands.search(study.scenes, extractor, study.detail_steps, study.extent.trials)
        facts = (self.fingerprints[extractor], self._data)
        title = 'Search a schedule'
        return [_generation('search', title, command, (out,), study.scenes, folder=out.parent, resume=(), facts=facts)]

    def cells(self) -> list[Step]:
        """Generate the images of all cells, and compare them."""
        study, detail = self.study, self.study.detail()
        generate = {cell: self._generate(cell) for cell in study.cells()}
        steps = []
        for cell, first in generate.items():
            chosen = study.extractors if cell in detail else study.extractors[:1]
            steps += [first, *(self._compare(cell, extractor, first) for extractor in chosen)]
        if study.extent.with_quality:
            out, after = study.commands.qualities, tuple(generate[cell] for cell in detail)
            command, facts = study.commands.quality(detail), (self._data,)
            steps.append(Step('quality', 'Look for garments', command, (out,), after=after, facts=facts))
        return steps

    def _generate(self, cell: Cell) -> Step:
        out, command = self.study.commands.folder(cell), self.study.commands.generate(cell)
        title, files = f'Generate {cell.title}', (out / 'generation.json', out / 'grid.png')
        return _generation(f'{cell.name}_generate', title, command, files, cell.line.model, folder=out, resume=())

    def _compare(self, cell: Cell, extractor: str, generate: Step) -> Step:
        out, command = self.study.commands.scores(cell, extractor), self.study.commands.evaluate(cell, extractor)
        facts = (self.fingerprints[extractor], self._data)
        return Step(out.stem, f'Compare {cell.title}', command, (out,), after=(generate,), facts=facts)

    @property
    def _data(self) -> str:
        return (self.study.commands.data_root / 'fashion_scenes.json').read_text()


def _generation(
    name: str, title: str, command: tuple[str, ...], outputs: tuple[Path, ...], model: Model, **more: Any
) -> Step:
    """A step that generates images: it depends on all weights of the model, and on its config."""
    config = Path(model.config if Path(model.config).is_file() else config_path(model.config))
    return Step(name, title, command, outputs, inputs=tuple(weight_files(model)), configs=(config,), **more)
