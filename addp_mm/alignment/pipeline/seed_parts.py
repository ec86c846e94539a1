# Copyright (c) addp_mm contributors. Apache-2.0.
"""The parts of an alignment with one seed, and what depends on what."""

from __future__ import annotations

import copy
import json
from collections.abc import Collection, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from mmengine.config import Config

from addp_mm.alignment.pipeline.plan import (
    BASE,
    COMPARISON,
    NEGATIVE,
    POSITIVE,
    SAMPLES,
    SELECTION,
    Contents,
    Plan,
    is_weighted,
)
from addp_mm.alignment.pipeline.samples import read_if
from addp_mm.alignment.pipeline.sections import SECTION
from addp_mm.checkpoints.atomic_write import write_json
from addp_mm.stages.remove_folder import remove_folder
from addp_mm.stages.stage import RECORD, Stage, comparable, differences

#: The work of a training step: forward and backward pass, and the frozen generator.
_PASSES = 4
#: Where the record of the rewards has the fingerprint of the weights.
_REWARD_WEIGHTS = 'reward_weights'
#: In the folder of the comparison: which holes are filled.
_HOLES = 'holes.json'
_SIDES = dict(LikelihoodTuning=1, PreferenceTuning=2)


class SeedParts:
    """The parts of an alignment with one seed: their files, what has changed, what is done.

    Args:
        plan: What to do.
        contents: Fingerprints of what the plan names by paths.
        folder: Folder of the seed, absolute.
        seed: Of the sampling and of the trainings.
        processes: Processes, one on each GPU.
    """

    def __init__(self, plan: Plan, contents: Contents, folder: Path, seed: int, processes: int) -> None:
        self.plan, self.contents, self.folder, self.seed = plan, contents, folder, seed
        self.processes = processes
        self.samples_folder, self.samples_record = folder / SAMPLES, folder / 'samples.json'
        self.rewards_file, self.selection_file = folder / 'rewards.json', folder / 'selection.json'
        self.scores_file, self.about_scores = folder / 'scores.safetensors', folder / 'scores.json'
        self.new: dict[str, Config] = {}
        self.stages: dict[str, Stage] = {}
        self._add_stages()

    def _add_stages(self) -> None:
        plan = self.plan
        samples = json.dumps([self._samples_wanted(), self._selection_wanted()], sort_keys=True)
        scores = [self._add_stage(POSITIVE, self._config(plan.likelihood, which='right'), [samples])]
        if plan.has_weights:
            scores.append(self._add_stage(NEGATIVE, self._config(plan.likelihood, which='wrong'), [samples]))
        for name, cfg in plan.methods.items():
            depends_on = [samples, *scores, str(plan.contrast)] if is_weighted(cfg) else [samples]
            self._add_stage(name, self._config(cfg), depends_on)

    def _samples_wanted(self) -> dict[str, Any]:
        """What determines a sample. Batch size and number of images do not."""
        plan, sampling = self.plan, [*self.plan.sampling]
        if '--batch-size' in sampling:
            at = sampling.index('--batch-size')
            del sampling[at : at + 2]
        base = dict(config=plan.base_config, weights=self.contents.base)
        inpainting = None if plan.holes is None else plan.holes.training.options
        wanted = dict(folder=str(self.folder), base=base, sampling=' '.join(sampling), inpainting=inpainting)
        return comparable(wanted)

    def _selection_wanted(self) -> dict[str, Any]:
        plan = self.plan
        return comparable(dict(num_images=plan.num_images, reward=plan.reward, selection=asdict(plan.rule)))

    def _selection_record(self) -> dict[str, Any]:
        """What determines the selection, with the contents of files.

        Stages depend on the options only. They are removed with the selection that changes.
        """
        return self._selection_wanted() | {_REWARD_WEIGHTS: self.contents.reward}

    def _add_stage(self, name: str, cfg: Config, depends_on: Sequence[str]) -> str:
        """Add a stage; returns its fingerprint."""
        own_config = 'edit a copy of CONFIG and give that to addp align'
        wanted = dict(cfg.to_dict(), processes=self.processes)
        self.new[name] = cfg
        self.stages[name] = Stage(self.folder, name, wanted, depends_on, 'addp align', own_config)
        return self.stages[name].fingerprint

    def _config(self, cfg: Config, which: str | None = None) -> Config:
        """The config of a training in this folder."""
        own = copy.deepcopy(cfg)
        for key in (SECTION, 'folder', 'trajectories'):
            own.pop(key, None)
        trajectories = str(self.samples_folder / 'trajectories')
        own.model.trajectories = trajectories
        own.train_dataloader.dataset.update(trajectories=trajectories, selection=str(self.selection_file))
        if which:
            own.train_dataloader.dataset.which = which
        elif is_weighted(cfg):
            own.train_dataloader.dataset.scores = str(self.scores_file)
        own.randomness = dict(own.get('randomness') or {}, seed=self.seed)
        return own

    @property
    def parts(self) -> list[str]:
        """What can be restarted, in order."""
        return [SAMPLES, SELECTION, *self.stages, COMPARISON]

    def contenders(self) -> list[str]:
        """Names of the models that are compared."""
        return [BASE, POSITIVE, *self.plan.methods]

    def depending_on(self, names: Collection[str]) -> list[str]:
        """These parts and those whose result depends on them, in order."""
        if SAMPLES in names:
            return self.parts
        if SELECTION in names:
            return [SELECTION, *self.stages, *[COMPARISON] * (COMPARISON in names)]
        again = {POSITIVE, NEGATIVE} & {*names}
        weighted = {method for method, cfg in self.plan.methods.items() if again and is_weighted(cfg)}
        return [name for name in (*self.stages, COMPARISON) if name in names or name in weighted]

    def changes(self, removed: Collection[str] = ()) -> dict[str, list[str]]:
        """How the options differ from those of the parts that were started, by part.

        Args:
            removed: Parts that are not compared. Defaults to (): none.
        """
        found: dict[str, list[str]] = {}
        has_samples = any(self.samples_folder.glob('images/*'))
        if SAMPLES not in removed and has_samples and (before := read_if(self.samples_record)):
            found[SAMPLES] = list(differences(before, self._samples_wanted()))
        if SELECTION not in removed and self.selection_file.is_file() and (before := read_if(self.rewards_file)):
            found[SELECTION] = self._selection_changes(before['wanted'])
        if COMPARISON not in removed:
            found[COMPARISON] = self._hole_changes()
        started = (name for name, stage in self.stages.items() if stage.is_prepared and name not in removed)
        found.update((name, self.stages[name].changes()) for name in started)
        return {name: changed for name, changed in found.items() if changed}

    def _selection_changes(self, before: dict[str, Any]) -> list[str]:
        wanted = dict(before)
        # a record of an earlier version does not say which weights it was made with
        weights = wanted.pop(_REWARD_WEIGHTS, self.contents.reward)
        found = list(differences(wanted, self._selection_wanted()))
        return found + ['the weights of the reward'] * (weights != self.contents.reward)

    def note_compared_holes(self) -> None:
        """Write down which holes the comparison fills, if it fills any."""
        if self.plan.holes is not None:
            write_json(self.folder / COMPARISON / _HOLES, dict(inpainting=self.plan.holes.compared.options))

    def _hole_changes(self) -> list[str]:
        holes, folder = self.plan.holes, self.folder / COMPARISON
        if holes is None or not any(folder.glob('*/images/*')):
            return []
        # earlier versions filled those of the training
        before = (read_if(folder / _HOLES) or {}).get('inpainting', holes.training.options)
        return list(differences(comparable(before), comparable(holes.compared.options), 'inpainting'))

    def restart(self, names: Collection[str]) -> None:
        """Remove parts, and all that depends on them."""
        removed = self.depending_on(names)
        # methods of earlier commands depend on the same samples and scores
        others = [path.parent.name for path in self.folder.glob(f'*/{RECORD}') if path.parent.name not in self.stages]
        if {*removed} & {SAMPLES, SELECTION, POSITIVE, NEGATIVE}:
            removed += others
        for part in reversed(removed):  # the earliest last: what remains belongs together
            if part == SELECTION:
                self._unlink(self.selection_file, self.rewards_file)
                self._unlink(*self.folder.glob('comparison/*/measures.json'))
            elif part == SAMPLES:
                remove_folder(self.samples_folder)
                self._unlink(self.samples_record)
            elif part == COMPARISON:
                remove_folder(self.folder / COMPARISON)
            else:
                self._unlink(*[self.about_scores] * (part in (POSITIVE, NEGATIVE)))
                remove_folder(self.folder / COMPARISON / part)
                remove_folder(self.folder / part)

    @staticmethod
    def _unlink(*paths: Path) -> None:
        for path in paths:
            path.unlink(missing_ok=True)

    def work(self) -> dict[str, float]:
        """Work of each stage that is left, in passes of an image through the generator."""
        plan, folder = self.plan, self.folder / COMPARISON
        has_samples = (self.samples_folder / 'complete').is_file()
        work = {SAMPLES: 0.0 if has_samples else float(plan.num_samples * plan.steps)}
        for name, stage in self.stages.items():
            cfg = self.new[name]
            sides = _SIDES.get(cfg.model.type.rpartition('.')[2], 1)
            passes = cfg.train_cfg.max_iters * cfg.train_dataloader.batch_size * sides * plan.steps * _PASSES
            work[name] = 0.0 if stage.done() else float(passes)
        for name in self.contenders():
            done = (folder / name / 'measures.json').is_file()
            work[f'{COMPARISON}/{name}'] = 0.0 if done else float(plan.num_compared * plan.steps)
        return {self.key(name): value for name, value in work.items()}

    def key(self, part: str) -> str:
        """Name of a part in the output."""
        return f'{self.folder.name}/{part}'

    def is_complete(self) -> bool:
        """Whether a run with this plan has ended here."""
        folder, count = self.folder / COMPARISON, self.plan.comparison.num_images
        for name in self.contenders():
            rewards = (read_if(folder / name / 'measures.json') or {}).get('rewards', {}).get('reward', [])
            if not rewards or self.plan.holes is None and len(rewards) != count:
                return False
        return not self.changes() and all(stage.done() for stage in self.stages.values())
