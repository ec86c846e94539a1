# Copyright (c) addp_mm contributors. Apache-2.0.
"""The alignment of a generator: all seeds, all methods, one comparison and one report."""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Mapping
from contextlib import ExitStack
from typing import Any

from mmengine.registry import DefaultScope

from addp_mm.alignment.generator_tuning import GeneratorTuning
from addp_mm.alignment.pipeline.clock import WorkClock
from addp_mm.alignment.pipeline.comparison import check_comparison, summary
from addp_mm.alignment.pipeline.page import summary_table, write_page
from addp_mm.alignment.pipeline.plan import Plan, read_plan
from addp_mm.alignment.pipeline.seed_run import SeedRun
from addp_mm.alignment.rewards import build_reward
from addp_mm.checkpoints.atomic_write import write_json
from addp_mm.checkpoints.fingerprint import module_fingerprint, weights_fingerprint
from addp_mm.checkpoints.init_weights import init_weights
from addp_mm.cli_options import aligned
from addp_mm.config.paths import require_writable_folder
from addp_mm.engine.device import choose_device
from addp_mm.errors import ConfigError, UserError, suggest
from addp_mm.folder_lock import lock_folder
from addp_mm.models.layers.lora_weights import is_adapter
from addp_mm.registry import MODELS
from addp_mm.stages.commands import Commands, Execute


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
        plan = read_plan(args.configs, args.cfg_options)
        processes = _processes(args.gpus)
        device = choose_device(None)
        check_plan(plan)
        require_writable_folder(args.work_dir, f'--work-dir {args.work_dir}')
        folders = {seed: args.work_dir / f'seed_{seed}' for seed in args.seeds}
        with ExitStack() as held:
            locks = [held.enter_context(lock_folder(folder)).fileno() for folder in folders.values()]
            commands = Commands(self._execute, locks, pipeline='addp align')
            runs = [SeedRun(plan, folder, seed, commands, processes, device) for seed, folder in folders.items()]
            self._start(plan, runs)
            clock = WorkClock({name: work for run in runs for name, work in run.work().items()})
            for run in runs:
                run.run(clock)
            self._report(plan, runs, commands)

    def _start(self, plan: Plan, runs: list[SeedRun]) -> None:
        again, parts = self.args.restart_from, ['samples', *runs[0].stages]
        if again and again not in parts:
            raise ConfigError(f'--restart-from {again}: choose from {", ".join(parts)}{suggest(again, parts)}')
        for run in runs:
            run.check(run.depending_on(again) if again else ())
        for run in runs:
            if again:
                run.restart(again)
            run.prepare()
        names = ', '.join(runs[0].stages)
        print(
            f'{plan.num_images:,} samples, then {names}; {plan.comparison.num_images:,} images of each model are '
            f'compared; {len(runs)} seed{"s" * (len(runs) > 1)}'
        )

    def _report(self, plan: Plan, runs: list[SeedRun], commands: Commands) -> None:
        measured = {name: [run.measured(name) for run in runs] for name in runs[0].contenders()}
        table = summary(measured)
        write_json(self.args.work_dir / 'comparison.json', table)
        path = self.args.work_dir / 'report.html'
        write_page(path, plan, runs, table, commands.ran)
        print(aligned(summary_table(table), numbers=True))
        weights = [str(runs[0].stages[name].weights) for name in plan.methods]
        print(f'done. Report: {path}\nweights: {", ".join(weights)}')


def check_plan(plan: Plan) -> None:
    """Find errors before the work: in rewards, data of the comparison, generators of the trainings.

    Raises:
        UserError: Something is missing or wrong.
    """
    from addp_mm.apis import load_model

    build_reward(plan.reward)
    check_comparison(plan.comparison)
    base = module_fingerprint(load_model(plan.base_config, plan.base_checkpoint))
    for name, cfg in {'likelihood': plan.likelihood, **plan.methods}.items():
        with DefaultScope.overwrite_default_scope(cfg.get('default_scope') or 'mmpretrain'):
            tuning = MODELS.build(cfg.model)
        if cfg.get('train_cfg', {}).get('max_iters') is None:
            raise ConfigError(f"{name}: train_cfg must be dict(type='IterBasedTrainLoop', max_iters=…)")
        if not isinstance(tuning, GeneratorTuning):
            raise ConfigError(
                f'{name}: model.type is {cfg.model.type}, but LikelihoodTuning or PreferenceTuning is needed'
            )
        init_weights(tuning.generator)
        if _fingerprint(tuning.generator.state_dict()) != base:
            raise ConfigError(
                f'{name}: model.generator has other weights than alignment.base.checkpoint {plan.base_checkpoint}, or '
                'is another model. Its init_cfg must load the same files as the config of alignment.base'
            )


def _fingerprint(state_dict: Mapping[str, Any]) -> str:
    return weights_fingerprint({name: weight for name, weight in state_dict.items() if not is_adapter(name)})


def _processes(asked: int | None) -> int:
    import torch

    gpus = torch.cuda.device_count()
    if asked and gpus and asked > gpus:
        raise UserError(f'--gpus {asked}: this machine has {gpus} GPUs')
    return asked or max(1, gpus)
