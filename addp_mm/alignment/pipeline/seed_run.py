# Copyright (c) addp_mm contributors. Apache-2.0.
"""An alignment with one seed, from the samples to the comparison."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm

from addp_mm.alignment.pairs import Selection, read_selection
from addp_mm.alignment.pipeline.clock import WorkClock
from addp_mm.alignment.pipeline.comparison import measure
from addp_mm.alignment.pipeline.plan import (
    BASE,
    COMPARISON,
    FRESH_SEEDS,
    NEGATIVE,
    POSITIVE,
    SAMPLES,
    Contents,
    Plan,
    is_weighted,
)
from addp_mm.alignment.pipeline.samples import (
    Samples,
    read_if,
    read_if_made_from,
    rewards_of,
    select_samples,
    write_contact_sheet,
)
from addp_mm.alignment.pipeline.sections import SECTION
from addp_mm.alignment.pipeline.seed_parts import SeedParts
from addp_mm.alignment.rewards import build_reward
from addp_mm.alignment.score_files import write_scores
from addp_mm.alignment.score_trajectories import score_trajectories
from addp_mm.checkpoints.atomic_write import write_json
from addp_mm.devices import empty_cache
from addp_mm.stages.commands import Commands, tool
from addp_mm.stages.progress import latest
from addp_mm.stages.remove_folder import remove_folder
from addp_mm.stages.stage import Stage, read_json
from addp_mm.stages.training import finish, train


class SeedRun(SeedParts):
    """One run from the base's samples to the comparison.

    Args:
        plan: See :class:`~addp_mm.alignment.pipeline.seed_parts.SeedParts`.
        contents: See there.
        folder: See there.
        seed: See there.
        processes: See there.
        commands: Runs the commands.
        device: Device of what runs in this process.
    """

    def __init__(
        self,
        plan: Plan,
        contents: Contents,
        folder: Path,
        seed: int,
        processes: int,
        commands: Commands,
        device: torch.device,
    ) -> None:
        super().__init__(plan, contents, folder, seed, processes)
        self.commands, self.device = commands, device

    def run(self, clock: WorkClock) -> None:
        """Run what is not done yet."""
        write_json(self.samples_record, self._samples_wanted())
        self._generate(SAMPLES, BASE, self.plan.num_samples, self.seed, clock)
        self._select()
        write_contact_sheet(self.samples(), self.selection(), self.folder / 'contact_sheet.png')
        for name, stage in self.stages.items():
            if name in self.plan.methods and is_weighted(self.plan.methods[name]):
                self._score()
            self._train(stage, clock)
        self.note_compared_holes()
        for name in self.contenders():
            part = f'{COMPARISON}/{name}'
            self._generate(part, name, self.plan.num_compared, self.seed + FRESH_SEEDS, clock)
            self.measured(name)

    def _generate(self, part: str, model: str, num_images: int, seed: int, clock: WorkClock) -> None:
        """Write images and trajectories of a model into a folder, unless this was done."""
        folder, key = self.folder / part, self.key(part)
        command, done = self._sampling(model, folder, num_images, seed), folder / 'complete'
        weights = self.contents.base if model == BASE else self.stages[model].fingerprint
        wanted = dict(command=command, weights=weights)
        if self.plan.holes is not None or self._asked(read_if(done) or {}) != self._asked(wanted):

            def progress() -> str:
                count = len(list((folder / 'images').rglob('*.png')))
                return clock.line(key, min(1.0, count / num_images), f'{count:,} images')

            self.commands(command, self.folder / 'logs' / f'{part.replace("/", "_")}.log', progress)
            write_json(done, wanted)
        clock.done(key)

    def _asked(self, about: dict[str, Any]) -> tuple[Any, Any]:
        """Arguments and weights of a sampling; another installation has another tool path."""
        command, config = about.get('command', []), self.plan.base_config
        return command[command.index(config) :] if config in command else command, about.get('weights')

    def _sampling(self, model: str, folder: Path, num_images: int, seed: int) -> list[str]:
        """The command that samples."""
        plan = self.plan
        weights = plan.base_checkpoint if model == BASE else self.stages[model].weights
        common = ['--out', folder, '--seed', seed, '--trajectories', *plan.sampling]
        if plan.holes is not None:
            filling = plan.holes.training if folder == self.samples_folder else plan.holes.compared
            return tool('inpaint.py', plan.base_config, weights, *filling.options, *common)
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
        return self._read(f'{COMPARISON}/{name}', self.plan.comparison.num_images)

    def _read(self, part: str, count: int) -> Samples:
        samples = Samples.read(self.folder / part)
        return samples if self.plan.holes is not None else samples.first(count)

    def selection(self) -> Selection:
        """What was selected; the numbers are those of the images."""
        samples = self.samples()
        return read_selection(self.selection_file, samples.numbers, samples.settings)

    def _select(self) -> None:
        """Compute the rewards, and select by them. What is selected stays."""
        if self.selection_file.is_file():
            return
        samples, wanted = self.samples(), self._selection_record()
        found = read_if(self.rewards_file) or {}
        before = dict(found.get('wanted', {}), selection=wanted['selection'])  # another rule has the same rewards
        rewards = found['rewards'] if before == wanted else None
        if rewards is None:
            reward = build_reward(self.plan.reward, f'{SECTION}.reward', self.device)
            rewards = rewards_of(reward, samples, f'{self.folder.name}: rewards')
        write_json(self.rewards_file, dict(wanted=wanted, rewards=rewards))
        select_samples(samples, rewards, self.plan.rule, self.selection_file)

    def _train(self, stage: Stage, clock: WorkClock) -> None:
        cfg = self.new[stage.name]
        key, max_iters = self.key(stage.name), cfg.train_cfg.max_iters
        if stage.done():
            print(f'[{key}] already done: {stage.weights}')
            return
        if not stage.is_prepared:
            remove_folder(stage.folder)  # without a record nobody knows of what it is
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
        selection = self.selection()
        sides = ([row_of[number] for number in side] for side in (selection.right, selection.wrong))
        faults = scores.faults(*sides)
        del base, positive, negative
        empty_cache(self.device)  # for the next training
        write_scores(self.scores_file, scores.scores, samples.numbers, samples.settings)
        margins = scores.margins.tolist()
        write_json(self.about_scores, dict(made_from=made_from, faults=faults, margins=margins, grid_size=grid_size))
        for fault in faults:
            print(f'warning: {fault}')

    def faults(self) -> list[str]:
        """What suggests that the scores cannot be trusted."""
        return (read_if(self.about_scores) or {}).get('faults', []) if self.plan.has_weights else []

    def grid_size(self) -> tuple[int, int]:
        """Tokens of an image that has scores, (h, w).

        Raises:
            StateError: The record of the scores is damaged.
        """
        remedy = 'Remove it: the same command computes the scores again'
        height, width = read_json(self.about_scores, remedy)['grid_size']
        return height, width

    def measured(self, name: str) -> dict[str, Any]:
        """What :func:`~addp_mm.alignment.pipeline.comparison.measure` found of a model."""
        contents = dict(self.contents.comparison)
        if self.contents.reward:
            contents['reward'] = self.contents.reward
        return measure(self.compared(name), self.plan.reward, self.plan.comparison, contents, self.device)
