# Copyright (c) addp_mm contributors. Apache-2.0.
"""The stages in order: finished stages are skipped, and an interrupted stage is resumed."""

from __future__ import annotations

from argparse import Namespace
from dataclasses import replace
from pathlib import Path

from mmengine.config import Config

from addp_mm.datasets import DatasetError
from addp_mm.errors import first_few
from addp_mm.own_data import tokens
from addp_mm.own_data.fitting import fit_config, try_stages
from addp_mm.own_data.images import KINDS, Found, dataset_cfg, find_images, warnings
from addp_mm.own_data.measure import MEASURED, check_extra_metrics, extra_metrics, measure, test_config
from addp_mm.own_data.page import write_page
from addp_mm.own_data.stages import STAGES, Request, build_configs, changeable_options, check_configs, options_by_stage
from addp_mm.own_data.work_dir import PARTS, TOKENS, WorkDir
from addp_mm.report.machine import cores
from addp_mm.stages.commands import Commands, Execute, tool
from addp_mm.stages.progress import Clock, duration, time_of_day
from addp_mm.stages.stage import Stage
from addp_mm.stages.training import export, finish, train, training_processes

_PREFIX = dict(tokenizer='tokenizer.', predictor='predictor.', addp='')


def own_stage(work_dir: Path, name: str, cfg: Config, before: str) -> Stage:
    """A stage whose result depends on its config and on the fingerprint of what is before it."""
    return Stage(
        work_dir,
        name,
        cfg.to_dict(),
        [before],
        written_by='tools/pretrain_from_folder.py',
        own_config=f'give a copy of it as --{name}-config',
    )


class Pipeline:
    """One run of the tool.

    Args:
        args: The command line.
        execute: Function that replaces the process of a command; see
            :class:`~addp_mm.stages.commands.Commands`. Defaults to None.

    Raises:
        StateError: The work dir is used by another run, or contains other files.
    """

    def __init__(self, args: Namespace, execute: Execute | None = None) -> None:
        self.args, self.work_dir = args, args.work_dir
        self.folder = WorkDir(self.work_dir)
        # --restart-from removes trained stages only after all checks.
        self.restart = args.restart_from if self.folder.is_begun else None
        self.commands = Commands(execute, [self.folder.lock.fileno()], pipeline='pretrain_from_folder.py')
        self.stages: dict[str, Stage] = {}
        self.new: dict[str, Config] = {}

    def run(self) -> None:
        """Run everything that is not done yet.

        Raises:
            UserError: Images, options or work dir are wrong, or a command failed.
        """
        try:
            self._inspect()
            self._check()
            self._prepare()
            self._work()
        finally:
            self.folder.close()

    def _inspect(self) -> None:
        """Inspect the images, and compare them with those of the work dir."""
        args = self.args
        cfg = dataset_cfg(args.images, self.folder.index, args.max_broken_share)
        print(f'{args.images} is read as {KINDS[cfg["type"].removeprefix("addp_mm.")]}')
        value_range = tuple(args.value_range) if args.value_range else None
        found = self._find(cfg, value_range)
        self.about = dict(
            images=cfg,
            fingerprint=found.fingerprint,
            channels=found.channels,
            inspected=dict(mean=found.mean, std=found.std, plain=found.plain),
        )
        if self.restart != STAGES[0]:
            self.folder.check_images(self.about)
        print(
            f'{found.count:,} images with {found.channels} channel{"s" * (found.channels > 1)}, '
            f'{found.val_count:,} of them held out; shortest side of the inspected images: {found.shortest} px'
        )
        for line in warnings(found, args.img_size, args.size):
            print(f'warning: {line}')
        if found.broken:
            print(f'warning: {len(found.broken)} inspected images are broken: {first_few(found.broken, 3, "; ")}')
        self.processes, bfloat16 = self._devices()
        self.request = Request(
            found,
            args.img_size,
            args.size,
            self.work_dir,
            {stage: config for stage in STAGES if (config := getattr(args, f'{stage}_config'))},
            options_by_stage(args.cfg_options),
            args.augment,
            tuple(args.crop_scale),
            args.views,
            value_range,
            bfloat16,
            max(1, min(4, cores() // self.processes)) if args.num_workers is None else args.num_workers,
        )

    def _find(self, cfg: dict, value_range: tuple[float, float] | None) -> Found:
        """Find the images. If they are the same, the statistics of the first start are kept."""
        all_again = self.restart == STAGES[0]
        begun = {} if all_again else self.folder.begun or {}
        index = self.folder.new_index() if all_again else self.folder.index
        changed = self.args.images_changed if begun else 'rescan'
        try:
            found = find_images(
                dict(cfg, index_file=str(index)), self.args.channels or begun.get('channels'), value_range, changed
            )
        except DatasetError as error:
            # The dataset's error names the option of its config; add the option of this tool.
            options = '; with this tool: --images-changed keep, or --restart-from tokenizer'
            raise DatasetError(f'{error}{options if "rescan" in str(error) else ""}') from error
        same = begun.get('fingerprint') == found.fingerprint
        return replace(found, dataset=cfg, **(begun.get('inspected', {}) if same else {}))

    def _check(self) -> None:
        """Check the options that can be checked without training."""
        self.configs = build_configs(self.request)
        check_configs(self.configs)
        self.extra = extra_metrics(self.args)
        check_extra_metrics(self.extra, self.request.found.channels, self.request.image_size)
        restarted = PARTS[PARTS.index(self.restart) :] if self.restart else ()
        before = self.request.found.fingerprint
        for name, cfg in self.configs.items():
            stage = self.stages[name] = own_stage(self.work_dir, name, cfg, before)
            before = stage.fingerprint
            if name in restarted or not stage.is_prepared:
                self.new[name] = cfg
            else:
                stage.check()

    def _prepare(self) -> None:
        """Find batch sizes of new stages that fit into memory, and write their configs."""
        if self.restart != STAGES[0]:
            self.folder.claim(self.about)
        tried = try_stages(self.new, self.request, self.processes, self.commands)
        if self.restart:
            self.folder.restart(self.restart, self.about)
        for name, cfg in self.new.items():
            self.stages[name].prepare(*fit_config(name, cfg, tried[name], self.processes))

    def _work(self) -> None:
        clock = self._clock()
        for name, stage in self.stages.items():
            if name == 'predictor' and not stage.done():
                tokens.tokenize(
                    self.request, self.stages['tokenizer'], self.args.max_broken_share, self.commands, clock
                )
            self._train(stage, clock)
            if name in MEASURED:
                measure(stage, test_config(name, self.configs, self.request, self.extra), self.commands)
        self._generate()
        self._report()

    def _devices(self) -> tuple[int, bool]:
        """Number of training processes, and whether they use bfloat16."""
        from addp_mm.devices import default_device, supports_bfloat16

        processes = training_processes(self.args.gpus)
        auto = supports_bfloat16(default_device())
        return processes, self.args.amp == 'bfloat16' or self.args.amp == 'auto' and auto

    def _clock(self) -> Clock:
        """Expected ends of the stages, printed for the user."""
        expected = {}
        for name, stage in self.stages.items():
            done, fitted = stage.done(), stage.fitted
            if name == 'predictor':
                expected[TOKENS] = 0.0
            expected[name] = 0.0 if done else fitted.get('seconds', 0.0) * fitted['max_iters']
        clock = Clock(expected)
        if clock.all_left():
            unknown = [name for name, s in self.stages.items() if not s.done() and 'seconds' not in s.fitted]
            which = f'all stages except {" and ".join(unknown)}' if unknown else 'all stages together'
            print(
                f'{which} take about {duration(clock.all_left())} and end about {time_of_day(clock.all_left())} '
                '(estimated from trial steps, without loading and tokenizing of images)'
            )
        return clock

    def _train(self, stage: Stage, clock: Clock) -> None:
        number = f'[{1 + STAGES.index(stage.name)}/{len(STAGES)} {stage.name}]'
        if stage.done():
            print(f'{number} already done: {stage.weights}')
            return
        max_iters = stage.fitted['max_iters']
        if stage.final_checkpoint(max_iters) is None:
            print(f'{number} {max_iters:,} iterations, log in {stage.folder / "train.log"}')
        checkpoint = train(
            stage,
            max_iters,
            self.commands,
            lambda: clock.line(stage.name, stage.run_dir, max_iters),
            self.processes,
            changeable_options(self.configs[stage.name]),
        )
        clock.expect(stage.name, 0.0)
        if stage.name == 'addp':
            backbone = stage.folder / 'backbone.safetensors'
            export(stage, checkpoint, backbone, self.commands, '--prefix', 'backbone.')
        finish(stage, checkpoint, _PREFIX[stage.name], self.commands)

    def generation(self) -> list[str]:
        """The command that generates images."""
        stage, steps = self.stages['addp'], 12 if self.request.size == 'nano' else 20
        return tool(
            'generate.py',
            stage.config,
            stage.weights,
            '--out',
            stage.folder / 'samples',
            '--num-images',
            self.args.num_images,
            '--steps',
            steps,
        )

    def _generate(self) -> None:
        folder = self.stages['addp'].folder
        out = folder / 'samples'
        if (out / 'grid.png').is_file() and len(list((out / 'images').glob('*.png'))) >= self.args.num_images:
            return
        self.commands(self.generation(), folder / 'generate.log')

    def _report(self) -> None:
        path = self.work_dir / 'report.html'
        write_page(path, self.request, self.stages, self.generation(), self.commands.ran)
        print(
            f'done. Report: {path}\nweights: '
            + ', '.join(str(stage.weights) for stage in self.stages.values())
            + f', {self.stages["addp"].folder / "backbone.safetensors"}'
        )
