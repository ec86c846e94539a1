# Copyright (c) addp_mm contributors. Apache-2.0.
"""All stages of an alignment with one seed."""

from __future__ import annotations

import copy
import json
import sys
from collections.abc import Collection, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from mmengine.config import Config
from tqdm import tqdm

from addp_mm.alignment.pairs import read_selection
from addp_mm.alignment.pipeline.clock import WorkClock
from addp_mm.alignment.pipeline.comparison import measure
from addp_mm.alignment.pipeline.plan import (
    BASE,
    FRESH_SEEDS,
    NEGATIVE,
    POSITIVE,
    SAMPLES,
    SECTION,
    SELECTION,
    Plan,
    is_weighted,
)
from addp_mm.alignment.pipeline.samples import Samples, read_if, read_if_made_from, rewards_of, select_samples
from addp_mm.alignment.rewards import build_reward
from addp_mm.alignment.score_files import write_scores
from addp_mm.alignment.score_trajectories import score_trajectories
from addp_mm.checkpoints.atomic_write import write_json
from addp_mm.stages.commands import Commands, tool
from addp_mm.stages.progress import latest
from addp_mm.stages.remove_folder import remove_folder
from addp_mm.stages.stage import Stage, comparable, differences
from addp_mm.stages.training import finish, train

#: The work of a training step: forward and backward pass, and the frozen generator.
_PASSES = 4
_SIDES = dict(LikelihoodTuning=1, PreferenceTuning=2)


class SeedRun:
    """One run from the base's samples to the comparison.

    Args:
        plan: What to do.
        base_weights: Fingerprint of the base's weights.
        folder: Folder of the seed, absolute.
        seed: Of the sampling and of the trainings.
        commands: Runs the commands.
        processes: Processes, one on each GPU.
        device: Device of what runs in this process.
    """

    def __init__(
        self,
        plan: Plan,
        base_weights: str,
        folder: Path,
        seed: int,
        commands: Commands,
        processes: int,
        device: torch.device,
    ) -> None:
        self.plan, self.base_weights, self.folder, self.seed = plan, base_weights, folder, seed
        self.commands, self.processes, self.device = commands, processes, device
        self.samples_folder, self.samples_record = folder / SAMPLES, folder / 'samples.json'
        self.rewards_file, self.selection_file = folder / 'rewards.json', folder / 'selection.json'
        self.scores_file, self.about_scores = folder / 'scores.safetensors', folder / 'scores.json'
        self.new: dict[str, Config] = {}
        self.stages: dict[str, Stage] = {}
        self._add_stages()

    # what there is to do

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
        base = dict(config=plan.base_config, weights=self.base_weights)
        wanted = dict(folder=str(self.folder), base=base, sampling=' '.join(sampling), inpainting=plan.inpainting)
        return comparable(wanted)

    def _selection_wanted(self) -> dict[str, Any]:
        plan = self.plan
        return comparable(dict(num_images=plan.num_images, reward=plan.reward, selection=asdict(plan.rule)))

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
        return [SAMPLES, SELECTION, *self.stages]

    def contenders(self) -> list[str]:
        """Names of the models that are compared."""
        return [BASE, POSITIVE, *self.plan.methods]

    def depending_on(self, names: Collection[str]) -> list[str]:
        """These parts and those whose result depends on them, in order."""
        if SAMPLES in names:
            return self.parts
        if SELECTION in names:
            return [SELECTION, *self.stages]
        again = {POSITIVE, NEGATIVE} & {*names}
        weighted = {method for method, cfg in self.plan.methods.items() if again and is_weighted(cfg)}
        return [name for name in self.stages if name in names or name in weighted]

    def changes(self) -> dict[str, list[str]]:
        """How the options differ from those of the parts that were started, by part."""
        found: dict[str, list[str]] = {}
        if before := read_if(self.samples_record):
            found[SAMPLES] = list(differences(before, self._samples_wanted()))
        if self.selection_file.is_file() and (before := read_if(self.rewards_file)):
            found[SELECTION] = list(differences(before['wanted'], self._selection_wanted()))
        found.update((name, stage.changes()) for name, stage in self.stages.items() if stage.is_prepared)
        return {name: changed for name, changed in found.items() if changed}

    def restart(self, names: Collection[str]) -> None:
        """Remove parts, and all that depends on them."""
        removed = self.depending_on(names)
        for part in reversed(removed):  # the earliest last: what remains belongs together
            if part == SELECTION:
                self._unlink(self.selection_file, self.rewards_file)
                self._unlink(*self.folder.glob('comparison/*/measures.json'))
            elif part == SAMPLES:
                remove_folder(self.folder / 'comparison' / BASE)
                remove_folder(self.samples_folder)
                self._unlink(self.samples_record)
            else:
                self._unlink(*[self.about_scores] * (part in (POSITIVE, NEGATIVE)))
                remove_folder(self.folder / 'comparison' / part)
                remove_folder(self.folder / part)

    @staticmethod
    def _unlink(*paths: Path) -> None:
        for path in paths:
            path.unlink(missing_ok=True)

    def work(self) -> dict[str, float]:
        """Work of each stage that is left, in passes of an image through the generator."""
        plan, folder = self.plan, self.folder / 'comparison'
        has_samples = (self.samples_folder / 'complete').is_file()
        work = {SAMPLES: 0.0 if has_samples else float(plan.num_images * plan.steps)}
        for name, stage in self.stages.items():
            cfg = self.new[name]
            sides = _SIDES.get(cfg.model.type.rpartition('.')[2], 1)
            passes = cfg.train_cfg.max_iters * cfg.train_dataloader.batch_size * sides * plan.steps * _PASSES
            work[name] = 0.0 if stage.done() else float(passes)
        for name in self.contenders():
            done = (folder / name / 'measures.json').is_file()
            work[f'comparison/{name}'] = 0.0 if done else float(plan.comparison.num_images * plan.steps)
        return {self._key(name): value for name, value in work.items()}

    def is_complete(self) -> bool:
        """Whether a run with this plan has ended here."""
        measured = ((self.folder / 'comparison' / name / 'measures.json').is_file() for name in self.contenders())
        return not self.changes() and all(stage.done() for stage in self.stages.values()) and all(measured)

    # the stages

    def run(self, clock: WorkClock) -> None:
        """Run what is not done yet."""
        write_json(self.samples_record, self._samples_wanted())
        self._generate(SAMPLES, BASE, self.plan.num_images, self.seed, clock)
        self._select()
        for name, stage in self.stages.items():
            if name in self.plan.methods and is_weighted(self.plan.methods[name]):
                self._score()
            self._train(stage, clock)
        for name in self.contenders():
            part = f'comparison/{name}'
            self._generate(part, name, self.plan.comparison.num_images, self.seed + FRESH_SEEDS, clock)
            self.measured(name)

    def _generate(self, part: str, model: str, num_images: int, seed: int, clock: WorkClock) -> None:
        """Write images and trajectories of a model into a folder, unless this was done."""
        folder, key = self.folder / part, self._key(part)
        command, done = self._sampling(model, folder, num_images, seed), folder / 'complete'
        weights = self.base_weights if model == BASE else self.stages[model].fingerprint
        wanted = dict(command=command, weights=weights)
        if read_if(done) != wanted or self.plan.inpainting is not None:

            def progress() -> str:
                count = len(list((folder / 'images').rglob('*.png')))
                return clock.line(key, min(1.0, count / num_images), f'{count:,} images')

            self.commands(command, self.folder / 'logs' / f'{part.replace("/", "_")}.log', progress)
            write_json(done, wanted)
        clock.done(key)

    def _sampling(self, model: str, folder: Path, num_images: int, seed: int) -> list[str]:
        """The command that samples."""
        plan = self.plan
        weights = plan.base_checkpoint if model == BASE else self.stages[model].weights
        common = ['--out', folder, '--seed', seed, '--trajectories', *plan.sampling]
        if plan.inpainting is not None:
            return tool('inpaint.py', plan.base_config, weights, *plan.inpainting, *common)
        common += ['--num-images', num_images, '--show-steps', 0]
        command = tool('generate.py', plan.base_config, weights, *common)
        if self.processes == 1:
            return command
        launch = [sys.executable, '-m', 'addp_mm.torchrun', '--nproc-per-node', str(self.processes)]
        return [*launch, *command[1:], '--launcher', 'pytorch']

    def samples(self) -> Samples:
        """The samples of the training."""
        return self._read(SAMPLES, self.plan.num_images)

    def compared(self, name: str) -> Samples:
        """The samples of a model for the comparison."""
        return self._read(f'comparison/{name}', self.plan.comparison.num_images)

    def _read(self, part: str, count: int) -> Samples:
        samples = Samples.read(self.folder / part)
        return samples if self.plan.inpainting is not None else samples.first(count)

    def _select(self) -> None:
        """Compute the rewards, and select by them. What is selected stays."""
        if self.selection_file.is_file():
            return
        samples, wanted = self.samples(), self._selection_wanted()
        found = read_if(self.rewards_file) or {}
        same = {key: found.get('wanted', {}).get(key) == wanted[key] for key in ('num_images', 'reward')}
        rewards = found['rewards'] if all(same.values()) else None
        if rewards is None:
            reward = build_reward(self.plan.reward, f'{SECTION}.reward', self.device)
            rewards = rewards_of(reward, samples, f'{self.folder.name}: rewards')
        write_json(self.rewards_file, dict(wanted=wanted, rewards=rewards))
        sheet = self.folder / 'contact_sheet.png'
        select_samples(samples, rewards, self.plan.rule, self.selection_file, sheet)

    def _train(self, stage: Stage, clock: WorkClock) -> None:
        cfg = self.new[stage.name]
        key, max_iters = self._key(stage.name), cfg.train_cfg.max_iters
        if stage.done():
            print(f'[{key}] already done: {stage.weights}')
            return
        if not stage.is_prepared:
            stage.prepare(cfg, dict(max_iters=max_iters))
        stage.check_config()
        print(f'[{key}] {max_iters:,} iterations, log in {stage.folder / "train.log"}')

        def progress() -> str | None:
            record = latest(stage.run_dir)
            if record is None:
                return None
            text = f'{record["iter"]:,} of {max_iters:,} iterations, loss {record.get("loss", float("nan")):.4g}'
            return clock.line(key, record['iter'] / max_iters, text)

        checkpoint = train(stage, max_iters, self.commands, progress, self.processes)
        finish(stage, checkpoint, 'generator.', self.commands)
        clock.done(key)

    def _score(self) -> None:
        """Write the token scores under the positive and the negative model, unless they exist."""
        made_from = [*(self.stages[name].fingerprint for name in (POSITIVE, NEGATIVE)), self.plan.contrast]
        if self.scores_file.is_file() and read_if_made_from(self.about_scores, made_from):
            return
        from addp_mm.apis import load_model

        samples = self.samples()
        weights = [self.plan.base_checkpoint, *(str(self.stages[name].weights) for name in (POSITIVE, NEGATIVE))]
        base, positive, negative = (load_model(self.plan.base_config, path, self.device) for path in weights)
        with tqdm(total=len(samples.numbers), unit='img', desc=f'{self.folder.name}: token scores') as bar:
            scores = score_trajectories(
                base,
                positive,
                negative,
                samples.trajectories,
                samples.settings,
                self.plan.contrast,
                progress=bar.update,
            )
        grid_size = base.latent_size
        row_of = {number: row for row, number in enumerate(samples.numbers)}
        selection = read_selection(self.selection_file, samples.numbers, samples.settings)
        sides = ([row_of[number] for number in side] for side in (selection.right, selection.wrong))
        faults = scores.faults(*sides)
        del base, positive, negative
        getattr(torch.get_device_module(self.device), 'empty_cache', lambda: None)()  # for the next training
        write_scores(self.scores_file, scores.scores, samples.numbers, samples.settings)
        margins = scores.margins.tolist()
        write_json(self.about_scores, dict(made_from=made_from, faults=faults, margins=margins, grid_size=grid_size))
        for fault in faults:
            print(f'warning: {fault}')

    def faults(self) -> list[str]:
        """What suggests that the scores cannot be trusted."""
        return (read_if(self.about_scores) or {}).get('faults', []) if self.plan.has_weights else []

    def measured(self, name: str) -> dict[str, Any]:
        """What :func:`~addp_mm.alignment.pipeline.comparison.measure` found of a model."""
        return measure(self.compared(name), self.plan.reward, self.plan.comparison, self.device)

    def _key(self, part: str) -> str:
        return f'{self.folder.name}/{part}'
