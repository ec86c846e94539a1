# Copyright (c) addp_mm contributors. Apache-2.0.
"""The stages in their order: what is done is passed over, what was begun goes on."""
from __future__ import annotations

import json
import os
import shutil
from argparse import Namespace
from collections.abc import Callable

from addp_mm.datasets import DatasetError
from addp_mm.errors import UserError
from own_data import progress
from own_data.commands import TOOLS, Commands, tool
from own_data.images import KINDS, dataset_cfg, find_images, warnings
from own_data.measure import MEASURED, check_extra_metrics, extra_metrics, measure, test_config
from own_data.schedule import accumulate
from own_data.stages import OWN, STAGES, Request, build_configs, given_anew, options_by_stage
from own_data.state import TOKENS, Stage, begin_anew, claim, lock, write_atomically

MIB = 2**20
# weights and two moments of the optimizer, and so many checkpoints at once
_STATES, _CHECKPOINTS = 3, 3
_TOKENIZED_AT_ONCE = 64
_BYTES_OF_LOGS = 200 * MIB
_PREFIX = dict(tokenizer='tokenizer.', predictor='predictor.', addp='')


class Pipeline:
    """One run of the tool.

    Args:
        args: The command line.
        execute: See :func:`pretrain_from_folder.main`.
    """

    def __init__(self, args: Namespace, execute: Callable | None = None) -> None:
        self.args, self.work_dir = args, args.work_dir
        self.work_dir.mkdir(parents=True, exist_ok=True)
        self.lock = lock(self.work_dir)
        self.commands = Commands(self.lock)
        if execute is not None:
            self.commands.execute = execute

    def run(self) -> None:
        """Do all that is not done yet.

        Raises:
            UserError: Something is wrong with images, options or work dir, or a command failed.
        """
        try:
            self._run()
        finally:
            self.lock.close()

    def _run(self) -> None:
        if self.args.restart_from:
            begin_anew(self.work_dir, self.args.restart_from)
        self._find()
        configs = self.configs = build_configs(self.request)
        self.stages, before = {}, self.request.found.fingerprint
        for name, cfg in configs.items():
            self.stages[name] = Stage(self.work_dir, name, cfg.to_dict(), [before])
            before = self.stages[name].fingerprint
        for stage in self.stages.values():
            stage.check()
        extra = extra_metrics(self.args)
        check_extra_metrics(extra, self.request.found.channels, self.request.image_size)
        self._prepare(configs)
        clock = self._clock()
        for name, stage in self.stages.items():
            if name == 'predictor':
                self._tokenize(stage)
            self._train(stage, clock)
            if name in MEASURED:
                measure(stage, test_config(name, configs, self.request, extra), self.commands)
        self._generate()
        self._report()

    def _find(self) -> None:
        """Look at the images, and claim the work dir for them."""
        args = self.args
        cfg = dataset_cfg(args.images, self.work_dir / 'images.index', args.max_broken_share)
        print(f'{args.images} is read as {KINDS[cfg["type"].removeprefix("addp_mm.")]}')
        value_range = tuple(args.value_range) if args.value_range else None
        try:
            found = find_images(cfg, args.channels, value_range, args.images_changed)
        except DatasetError as error:
            hint = ('; with this tool: --images-changed keep, or --restart-from tokenizer'
                    if "changed='rescan'" in str(error) else '')
            raise DatasetError(f'{error}{hint}') from error
        claim(self.work_dir, dict(images=cfg, fingerprint=found.fingerprint, channels=found.channels),
              anew=args.restart_from == STAGES[0])
        print(f'{found.count:,} images with {found.channels} channel{"s" * (found.channels > 1)}, one in '
              f'{found.val_every} held out; the shortest side of those looked at is {found.shortest} px')
        for words in warnings(found, args.image_size, args.size):
            print(f'warning: {words}')
        self.processes, bfloat16 = self._devices()
        cores = len(os.sched_getaffinity(0)) if hasattr(os, 'sched_getaffinity') else os.cpu_count() or 1
        workers = max(1, min(4, cores // self.processes)) if args.num_workers is None else args.num_workers
        self.request = Request(
            found, args.image_size, args.size, self.work_dir,
            {stage: config for stage in STAGES if (config := getattr(args, f'{stage}_config'))},
            options_by_stage(args.cfg_options), args.augment, tuple(args.crop_scale), args.views, value_range, bfloat16,
            workers)

    def _devices(self) -> tuple[int, bool]:
        """Processes that train, and whether in bfloat16."""
        import torch
        gpus = torch.cuda.device_count()
        processes = self.args.gpus or max(1, gpus)
        if gpus and processes > gpus:
            raise UserError(f'--gpus {processes}: this machine has {gpus}')
        auto = gpus > 0 and torch.cuda.is_bf16_supported()
        return processes, self.args.precision == 'bfloat16' or self.args.precision == 'auto' and auto

    def _prepare(self, configs: dict) -> None:
        """Fit the batches of the stages that were not begun to the memory, and write their configs."""
        new = {name: cfg for name, cfg in configs.items() if self.stages[name].record() is None}
        tried = self._try(new)
        self._check_disk(new, tried)
        for name, cfg in new.items():
            own, fitted = cfg.pop(OWN, None), tried.get(name, {})
            if own is not None:
                counts = max(1, round(own['batch_size'] / (fitted['batch'] * self.processes)))
                accumulate(cfg, fitted['batch'], counts)
                times = f' x {self.processes} processes' if self.processes > 1 else ''
                times += f' x {counts} passes' if counts > 1 else ''
                print(f'{name}: {own["max_iters"]:,} steps of {fitted["batch"]}{times} images')
                fitted.update(accumulated=counts)
            self.stages[name].prepare(cfg, dict(fitted, max_iters=cfg.train_cfg.max_iters))

    def _try(self, new: dict) -> dict:
        asked = {}
        for name, cfg in new.items():
            if OWN in cfg:
                shape = ([cfg.model.predictor.num_tokens] if name == 'predictor' else
                         [self.request.found.channels, self.request.image_size, self.request.image_size])
                plain = {key: cfg[key] for key in ('model', 'optim_wrapper', 'default_scope') if key in cfg}
                batch = max(1, -(-cfg[OWN].batch_size // self.processes))
                asked[name] = dict(cfg=plain, batch=batch, shape=shape)
        if not asked:
            return {}
        spec, out = self.work_dir / 'trial_spec.json', self.work_dir / 'trial.json'
        write_atomically(spec, json.dumps(dict(stages=asked, processes=self.processes)))
        self.commands(tool('own_data/trial_steps.py', spec, out), self.work_dir / 'trial.log')
        return json.loads(out.read_text())

    def _check_disk(self, new: dict, tried: dict) -> None:
        found = self.request.found
        num_tokens = (self.request.image_size // 8)**2
        needed = found.train_count * self.request.views * num_tokens * 2 * ('predictor' in new)
        needed += sum(4 * tried[name]['parameters'] * _STATES * _CHECKPOINTS for name in tried)
        needed += _BYTES_OF_LOGS * bool(new)
        free = shutil.disk_usage(self.work_dir).free
        if needed > free:
            raise UserError(f'{self.work_dir}: checkpoints and ids take up to {needed / MIB:,.0f} MiB, and '
                            f'{free / MIB:,.0f} MiB are free. Choose a --work-dir on another disk, or fewer --views')

    def _clock(self) -> progress.Clock:
        expected = {}
        for name, stage in self.stages.items():
            fitted = stage.record()['fitted']
            done = stage.done()
            expected[name] = 0. if done else fitted.get('seconds', 0.) * fitted['max_iters']
        clock = progress.Clock(expected)
        if clock.all_left():
            print(f'all stages together take about {progress.duration(clock.all_left())} and end about '
                  f'{progress.at(clock.all_left())}, by trial steps without loading of images')
        return clock

    def _train(self, stage: Stage, clock: progress.Clock) -> None:
        number = f'[{1 + STAGES.index(stage.name)}/{len(STAGES)} {stage.name}]'
        if stage.done():
            print(f'{number} done before: {stage.weights}')
            return
        max_iters = stage.record()['fitted']['max_iters']
        if stage.final_checkpoint(max_iters) is None:
            print(f'{number} {max_iters:,} iterations, log in {stage.folder / "train.log"}')
            config = ['--work-dir', str(stage.run_dir), '--resume', 'auto']
            options = given_anew(self.configs[stage.name])
            config += ['--cfg-options', *options] if options else []
            if self.processes > 1 or self.args.launcher == 'pytorch':
                command = ['bash', str(TOOLS / 'dist_train.sh'), str(stage.config), str(self.processes), *config]
            else:
                command = tool('train.py', stage.config, *config)
            self.commands(command, stage.folder / 'train.log',
                          lambda: clock.line(stage.name, stage.run_dir, max_iters))
        checkpoint = stage.final_checkpoint(max_iters)
        if checkpoint is None:
            raise UserError(f'{stage.run_dir} has no checkpoint of iteration {max_iters}: see '
                            f'{stage.folder / "train.log"}; is train_cfg.max_iters of {stage.config} another?')
        clock.expected[stage.name] = 0.
        export, log = 'model_converters/export_weights.py', stage.folder / 'export.log'
        if stage.name == 'addp':
            self.commands(tool(export, checkpoint, stage.folder / 'backbone.safetensors', '--prefix', 'backbone.'), log)
        # last of all, since its being there says that the stage is done
        self.commands(tool(export, checkpoint, stage.weights, '--prefix', _PREFIX[stage.name], '--meta',
                           f'fingerprint={stage.fingerprint}'), log)

    def _tokenize(self, predictor: Stage) -> None:
        if predictor.done():
            return
        request, before = self.request, self.stages['tokenizer']
        about = f'{before.fingerprint} {request.views} {request.augmentation} {request.crop_scale}'
        stamp = self.work_dir / TOKENS / 'made_from.txt'
        if stamp.is_file():
            if stamp.read_text() == about:
                return
            shutil.rmtree(stamp.parent)
        # what fits when a step of the training is taken fits without one
        fits = before.record()['fitted'].get('batch') or self.configs['tokenizer'].train_dataloader.batch_size
        command = tool('dataset_converters/tokenize_images.py', before.config, before.config, self.work_dir / TOKENS,
                       '--checkpoint', before.weights, '--image-size', request.image_size, '--augment',
                       request.augmentation, '--views', request.views, '--crop-scale', *request.crop_scale,
                       '--num-workers', request.num_workers, '--batch-size', min(_TOKENIZED_AT_ONCE, fits),
                       '--max-broken-share', self.args.max_broken_share)
        self.commands(command, self.work_dir / 'tokenize.log')
        write_atomically(stamp, about)

    def generation(self) -> list[str]:
        """The command that draws samples."""
        stage, steps = self.stages['addp'], 12 if self.request.size == 'nano' else 20
        return tool('generate.py', stage.config, stage.weights, '--out', stage.folder / 'samples', '--num-images',
                    self.args.samples, '--steps', steps)

    def _generate(self) -> None:
        folder = self.stages['addp'].folder
        out = folder / 'samples'
        if (out / 'grid.png').is_file() and len(list((out / 'images').glob('*.png'))) >= self.args.samples:
            return
        self.commands(self.generation(), folder / 'generate.log')

    def _report(self) -> None:
        from own_data.page import write_page
        path = self.work_dir / 'report.html'
        write_page(path, self)
        print(f'done. Page: {path}\nweights: '
              + ', '.join(str(stage.weights) for stage in self.stages.values())
              + f', {self.stages["addp"].folder / "backbone.safetensors"}')


