# Copyright (c) addp_mm contributors. Apache-2.0.
"""All stages of an alignment with one seed."""

from __future__ import annotations

import copy
import json
import shutil
import sys
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

from mmengine.config import Config
from tqdm import tqdm

from addp_mm.alignment.pairs import Selection, read_selection
from addp_mm.alignment.pipeline.clock import WorkClock
from addp_mm.alignment.pipeline.comparison import measure
from addp_mm.alignment.pipeline.plan import BASE, FRESH_SEEDS, NEGATIVE, POSITIVE, SECTION, Plan, is_weighted
from addp_mm.alignment.pipeline.samples import Samples, read_if_made_from, rewards_of, select_samples
from addp_mm.alignment.rewards import build_reward
from addp_mm.alignment.score_files import write_scores
from addp_mm.alignment.score_trajectories import score_trajectories
from addp_mm.checkpoints.atomic_write import write_json, write_text
from addp_mm.stages.commands import Commands, tool
from addp_mm.stages.progress import latest
from addp_mm.stages.stage import Stage
from addp_mm.stages.training import finish, train

#: The work of a training step: forward and backward pass, and the frozen generator.
_PASSES = 4
_SIDES = dict(LikelihoodTuning=1, PreferenceTuning=2)


class SeedRun:
    """One run from the base's samples to the comparison.

    Args:
        plan: What to do.
        folder: Folder of the seed, absolute.
        seed: Of the sampling and of the trainings.
        commands: Runs the commands.
        processes: Processes, one on each GPU.
        device: Device of what runs in this process.
    """

    def __init__(self, plan: Plan, folder: Path, seed: int, commands: Commands, processes: int, device: Any) -> None:
        self.plan, self.folder, self.seed = plan, folder, seed
        self.commands, self.processes, self.device = commands, processes, device
        self.samples_folder = folder / 'samples'
        self.selection_file, self.scores_file = folder / 'selection.json', folder / 'scores.safetensors'
        self.about_scores = folder / 'scores.json'
        self.new: dict[str, Config] = {}
        self.stages: dict[str, Stage] = {}
        self._add_stages()

    # what there is to do

    def _add_stages(self) -> None:
        plan = self.plan
        made_from = [plan.base_config, plan.base_checkpoint, plan.num_images, plan.sampling, plan.reward]
        made_from += [plan.inpainting] if plan.inpainting else []
        samples = json.dumps([*made_from, vars(plan.rule)], sort_keys=True, default=str)
        scores = [self._add_stage(POSITIVE, self._config(plan.likelihood, which='right'), [samples])]
        if plan.has_weights:
            scores.append(self._add_stage(NEGATIVE, self._config(plan.likelihood, which='wrong'), [samples]))
        for name, cfg in plan.methods.items():
            depends_on = [samples, *scores, str(plan.contrast)] if is_weighted(cfg) else [samples]
            self._add_stage(name, self._config(cfg), depends_on)

    def _add_stage(self, name: str, cfg: Config, depends_on: Sequence[str]) -> str:
        """Add a stage; returns its fingerprint."""
        own_config = 'edit a copy of CONFIG and give that to addp align'
        self.new[name] = cfg
        self.stages[name] = Stage(self.folder, name, cfg.to_dict(), depends_on, 'addp align', own_config)
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

    def depending_on(self, name: str) -> list[str]:
        """A stage and those whose result depends on it, in order."""
        if name == 'samples':
            return [name, *self.stages]
        if name in (POSITIVE, NEGATIVE):
            return [name, *(method for method, cfg in self.plan.methods.items() if is_weighted(cfg))]
        return [name]

    def restart(self, name: str) -> None:
        """Remove a stage, and all that depends on it."""
        if name not in self.plan.methods:
            self.about_scores.unlink(missing_ok=True)
        for part in reversed(self.depending_on(name)):  # the earliest last: what remains belongs together
            for folder in (self.folder / 'comparison' / part, self.folder / part):
                if folder.exists():
                    shutil.rmtree(folder)

    def check(self, removed: Collection[str]) -> None:
        """Compare the stages with those that were started before.

        Args:
            removed: Stages that will be removed.

        Raises:
            StateError: A stage was started with other options.
        """
        for name, stage in self.stages.items():
            if name not in removed and stage.is_prepared:
                stage.check()

    def prepare(self) -> None:
        """Write the configs of the stages that are new."""
        for name, stage in self.stages.items():
            if not stage.is_prepared:
                stage.prepare(self.new[name], dict(max_iters=self.new[name].train_cfg.max_iters))

    def work(self) -> dict[str, float]:
        """Work of each stage that is left, in passes of an image through the generator."""
        steps = int(_value_of(self.plan.sampling, '--steps', 20))
        work = {'samples': float(self.plan.num_images * steps)}
        if len(list((self.samples_folder / 'images').glob('*.png'))) >= self.plan.num_images:
            work['samples'] = 0.0
        for name, stage in self.stages.items():
            cfg = self.new[name]
            sides = _SIDES.get(cfg.model.type.rpartition('.')[2], 1)
            passes = cfg.train_cfg.max_iters * cfg.train_dataloader.batch_size * sides * steps * _PASSES
            work[name] = 0.0 if stage.done() else float(passes)
        for name in self.contenders():
            done = (self.folder / 'comparison' / name / 'measures.json').is_file()
            work[f'comparison/{name}'] = 0.0 if done else float(self.plan.comparison.num_images * steps)
        return {f'{self.folder.name}/{name}': value for name, value in work.items()}

    def contenders(self) -> list[str]:
        """Names of the models that are compared."""
        return [BASE, POSITIVE, *self.plan.methods]

    # the stages

    def run(self, clock: WorkClock) -> None:
        """Run what is not done yet."""
        self._generate('samples', BASE, self.plan.num_images, self.seed, clock)
        self.select()
        for name, stage in self.stages.items():
            if name in self.plan.methods and is_weighted(self.plan.methods[name]):
                self._score()
            self._train(stage, clock)
        for name in self.contenders():
            self._compare(name, clock)

    def _generate(self, part: str, model: str, num_images: int, seed: int, clock: WorkClock) -> None:
        """Write images and trajectories of a model into a folder, unless this was done."""
        folder, key = self.folder / part, self._key(part)
        command, done = self._sampling(model, folder, num_images, seed), folder / 'complete'
        if not (done.is_file() and done.read_text() == _joined(command)):

            def progress() -> str:
                count = len(list((folder / 'images').rglob('*.png')))
                return clock.line(key, min(1.0, count / num_images), f'{count:,} of {num_images:,} images')

            self.commands(command, self.folder / 'logs' / f'{part.replace("/", "_")}.log', progress)
            write_text(done, _joined(command))
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

    def select(self) -> Selection:
        """Select by the rewards; both are computed unless they exist. The numbers are rows."""
        samples, path = Samples.read(self.samples_folder), self.folder / 'rewards.json'
        made_from = json.loads(json.dumps([self.plan.reward, samples.settings, len(samples.numbers)], default=str))
        found = read_if_made_from(path, made_from)
        if found is None:
            rewards = rewards_of(build_reward(self.plan.reward), samples, f'{self.folder.name}: rewards')
            found = dict(made_from=made_from, rewards=rewards)
            write_json(path, found)
        sheet = self.folder / 'contact_sheet.png'
        return select_samples(samples, found['rewards'], self.plan.rule, self.selection_file, sheet)

    def _train(self, stage: Stage, clock: WorkClock) -> None:
        key, max_iters = self._key(stage.name), stage.fitted['max_iters']
        if stage.done():
            print(f'[{key}] already done: {stage.weights}')
            return
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

        samples = Samples.read(self.samples_folder)
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
        row_of = {number: row for row, number in enumerate(samples.numbers)}
        selection = read_selection(self.selection_file, samples.numbers, samples.settings)
        sides = ([row_of[number] for number in side] for side in (selection.right, selection.wrong))
        faults = scores.faults(*sides)
        for fault in faults:
            print(f'warning: {fault}')
        write_scores(self.scores_file, scores.scores, samples.numbers, samples.settings)
        about = dict(made_from=made_from, faults=faults, margins=scores.margins.tolist(), grid_size=base.latent_size)
        write_json(self.about_scores, about)

    def _compare(self, name: str, clock: WorkClock) -> None:
        comparison = self.plan.comparison
        part = f'comparison/{name}'
        self._generate(part, name, comparison.num_images, self.seed + FRESH_SEEDS, clock)
        self.measured(name)

    def measured(self, name: str) -> dict[str, Any]:
        """What :func:`~addp_mm.alignment.pipeline.comparison.measure` found of a model."""
        folder = self.folder / 'comparison' / name
        made_from = self.plan.base_checkpoint if name == BASE else self.stages[name].fingerprint
        return measure(Samples.read(folder), self.plan.reward, self.plan.comparison, made_from, self.device)

    def _key(self, part: str) -> str:
        return f'{self.folder.name}/{part}'


def _value_of(options: Sequence[str], option: str, default: object) -> Any:
    return options[options.index(option) + 1] if option in options else default


def _joined(command: Sequence[str]) -> str:
    return '\n'.join(command) + '\n'
