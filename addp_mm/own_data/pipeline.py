# Copyright (c) addp_mm contributors. Apache-2.0.
"""The stages in their order: what is done is passed over, what was begun goes on."""

from __future__ import annotations

import os
from argparse import Namespace
from collections.abc import Callable
from dataclasses import replace

from addp_mm.datasets import DatasetError
from addp_mm.errors import UserError, first_few
from addp_mm.own_data import progress, tokens
from addp_mm.own_data.commands import TOOLS, Commands, tool
from addp_mm.own_data.fitting import check_disk, set_batch, try_stages
from addp_mm.own_data.images import KINDS, Found, dataset_cfg, find_images, warnings
from addp_mm.own_data.measure import MEASURED, check_extra_metrics, extra_metrics, measure, test_config
from addp_mm.own_data.stages import STAGES, Request, build_configs, check_configs, given_anew, options_by_stage
from addp_mm.own_data.state import Stage, moved
from addp_mm.own_data.work_dir import PARTS, TOKENS, WorkDir

_PREFIX = dict(tokenizer='tokenizer.', predictor='predictor.', addp='')


class Pipeline:
    """One run of the tool.

    Args:
        args: The command line.
        execute: See :func:`pretrain_from_folder.main`.

    Raises:
        StateError: The work dir is something else, or in use.
    """

    def __init__(self, args: Namespace, execute: Callable | None = None) -> None:
        self.args, self.work_dir = args, args.work_dir
        self.folder = WorkDir(self.work_dir)
        # what was trained is removed by --restart-from only when all that can be checked is
        self.restart = args.restart_from if self.folder.is_begun else None
        self.commands = Commands(self.folder.lock)
        if execute is not None:
            self.commands.execute = execute

    def run(self) -> None:
        """Do all that is not done yet.

        Raises:
            UserError: Something is wrong with images, options or work dir, or a command failed.
        """
        try:
            self._look()
            self._check()
            self._prepare()
            self._work()
        finally:
            self.folder.close()

    def _look(self) -> None:
        """Look at the images, and find that the work dir is theirs."""
        args = self.args
        cfg = dataset_cfg(args.images, self.folder.index, args.max_broken_share)
        print(f'{args.images} is read as {KINDS[cfg["type"].removeprefix("addp_mm.")]}')
        value_range = tuple(args.value_range) if args.value_range else None
        found = self._find(cfg, value_range)
        self.about = dict(
            images=cfg,
            fingerprint=found.fingerprint,
            channels=found.channels,
            looked_at=dict(mean=found.mean, std=found.std, plain=found.plain),
        )
        if self.restart != STAGES[0]:
            self.folder.check_images(self.about)
        self.folder.keep_list()
        print(
            f'{found.count:,} images with {found.channels} channel{"s" * (found.channels > 1)}, one in '
            f'{found.val_every} held out; the shortest side of those looked at is {found.shortest} px'
        )
        for words in warnings(found, args.image_size, args.size):
            print(f'warning: {words}')
        if found.broken:
            print(
                f'warning: {len(found.broken)} of the images looked at are broken: {first_few(found.broken, 3, "; ")}'
            )
        self.processes, bfloat16 = self._devices()
        cores = len(os.sched_getaffinity(0)) if hasattr(os, 'sched_getaffinity') else os.cpu_count() or 1
        workers = max(1, min(4, cores // self.processes)) if args.num_workers is None else args.num_workers
        self.request = Request(
            found,
            args.image_size,
            args.size,
            self.work_dir,
            {stage: config for stage in STAGES if (config := getattr(args, f'{stage}_config'))},
            options_by_stage(args.cfg_options),
            args.augment,
            tuple(args.crop_scale),
            args.views,
            value_range,
            bfloat16,
            workers,
        )

    def _find(self, cfg: dict, value_range: tuple[float, float] | None) -> Found:
        """The images; what a look at them said when the work dir was begun is kept while they are the same."""
        anew = self.restart == STAGES[0]
        begun = {} if anew else self.folder.begun or {}
        index = self.folder.new_index() if anew else self.folder.index
        changed = self.args.images_changed if begun else 'rescan'
        try:
            found = find_images(
                dict(cfg, index_file=str(index)), self.args.channels or begun.get('channels'), value_range, changed
            )
        except DatasetError as error:
            hint = (
                '; with this tool: --images-changed keep, or --restart-from tokenizer'
                if "changed='rescan'" in str(error)
                else ''
            )
            raise DatasetError(f'{error}{hint}') from error
        same = begun.get('fingerprint') == found.fingerprint
        return replace(found, dataset=cfg, **(begun.get('looked_at', {}) if same else {}))

    def _check(self) -> None:
        """Find what is wrong with the options, as far as that can be told without training."""
        configs = self.configs = build_configs(self.request)
        check_configs(configs)
        self.extra = extra_metrics(self.args)
        check_extra_metrics(self.extra, self.request.found.channels, self.request.image_size)
        anew = PARTS[PARTS.index(self.restart) :] if self.restart else ()
        self.stages, self.new, before = {}, {}, self.request.found.fingerprint
        begun_at = self.work_dir if self.restart == STAGES[0] else self.folder.begun_at
        for name, cfg in configs.items():
            stage = self.stages[name] = Stage(self.work_dir, name, cfg.to_dict(), [before], begun_at)
            before = stage.fingerprint
            if name in anew or stage.record() is None:
                self.new[name] = cfg
            else:
                stage.check()

    def _prepare(self) -> None:
        """Fit the batches of the stages that are to be begun to the memory, and write their configs."""
        if self.restart != STAGES[0] and 'looked_at' not in (self.folder.begun or {}):
            self.folder.claim(moved(self.about, self.work_dir, self.folder.begun_at))
        tried = try_stages(self.new, self.request, self.processes, self.commands)
        check_disk(self.work_dir, self.request, tried, self.folder.size_from(self.restart) if self.restart else 0)
        if self.restart:
            self.folder.begin_anew(self.restart, self.about)
        for name, cfg in self.new.items():
            self.stages[name].prepare(cfg, set_batch(name, cfg, tried[name], self.processes))

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
        """Processes that train, and whether in bfloat16."""
        import torch

        gpus = torch.cuda.device_count()
        processes = self.args.gpus or max(1, gpus)
        if gpus and processes > gpus:
            raise UserError(f'--gpus {processes}: this machine has {gpus}')
        auto = gpus > 0 and torch.cuda.is_bf16_supported()
        return processes, self.args.precision == 'bfloat16' or self.args.precision == 'auto' and auto

    def _clock(self) -> progress.Clock:
        expected = {}
        for name, stage in self.stages.items():
            if name == 'predictor':
                expected[TOKENS] = (
                    0.0 if stage.done() else tokens.expected_seconds(self.request, self.stages['tokenizer'])
                )
            fitted = stage.record()['fitted']
            expected[name] = 0.0 if stage.done() else fitted.get('seconds', 0.0) * fitted['max_iters']
        clock = progress.Clock(expected)
        if clock.all_left():
            unknown = [
                name
                for name, stage in self.stages.items()
                if not stage.done() and 'seconds' not in stage.record()['fitted']
            ]
            which = f'all stages but {" and ".join(unknown)}' if unknown else 'all stages together'
            print(
                f'{which} take about {progress.duration(clock.all_left())} and end about '
                f'{progress.at(clock.all_left())}, by trial steps without loading of images'
            )
        return clock

    def _train(self, stage: Stage, clock: progress.Clock) -> None:
        number = f'[{1 + STAGES.index(stage.name)}/{len(STAGES)} {stage.name}]'
        if stage.done():
            print(f'{number} done before: {stage.weights}')
            return
        max_iters = stage.record()['fitted']['max_iters']
        if stage.final_checkpoint(max_iters) is None:
            stage.mend_latest()
            print(f'{number} {max_iters:,} iterations, log in {stage.folder / "train.log"}')
            config = ['--work-dir', str(stage.run_dir), '--resume', 'auto']
            options = given_anew(self.configs[stage.name])
            config += ['--cfg-options', *options] if options else []
            if self.processes > 1 or self.args.launcher == 'pytorch':
                command = ['bash', str(TOOLS / 'dist_train.sh'), str(stage.config), str(self.processes), *config]
            else:
                command = tool('train.py', stage.config, *config)
            self.commands(command, stage.folder / 'train.log', lambda: clock.line(stage.name, stage.run_dir, max_iters))
        checkpoint = stage.final_checkpoint(max_iters)
        if checkpoint is None:
            raise UserError(
                f'{stage.run_dir} has no checkpoint of iteration {max_iters}: see '
                f'{stage.folder / "train.log"}; is train_cfg.max_iters of {stage.config} another?'
            )
        clock.expect(stage.name, 0.0)
        export, log = 'model_converters/export_weights.py', stage.folder / 'export.log'
        if stage.name == 'addp':
            self.commands(
                tool(export, checkpoint, stage.folder / 'backbone.safetensors', '--prefix', 'backbone.', '--overwrite'),
                log,
            )
        # last of all, since its being there says that the stage is done
        self.commands(
            tool(
                export,
                checkpoint,
                stage.weights,
                '--prefix',
                _PREFIX[stage.name],
                '--meta',
                f'fingerprint={stage.fingerprint}',
                '--overwrite',
            ),
            log,
        )

    def generation(self) -> list[str]:
        """The command that draws samples."""
        stage, steps = self.stages['addp'], 12 if self.request.size == 'nano' else 20
        return tool(
            'generate.py',
            stage.config,
            stage.weights,
            '--out',
            stage.folder / 'samples',
            '--num-images',
            self.args.samples,
            '--steps',
            steps,
        )

    def _generate(self) -> None:
        folder = self.stages['addp'].folder
        out = folder / 'samples'
        if (out / 'grid.png').is_file() and len(list((out / 'images').glob('*.png'))) >= self.args.samples:
            return
        self.commands(self.generation(), folder / 'generate.log')

    def _report(self) -> None:
        from addp_mm.own_data.page import write_page

        path = self.work_dir / 'report.html'
        write_page(path, self)
        print(
            f'done. Page: {path}\nweights: '
            + ', '.join(str(stage.weights) for stage in self.stages.values())
            + f', {self.stages["addp"].folder / "backbone.safetensors"}'
        )
