# Copyright (c) addp_mm contributors. Apache-2.0.
"""A training of three steps that records gradients and weights, on one or several processes."""

from __future__ import annotations

from pathlib import Path

from mmengine.config import Config
from mmengine.hooks import Hook
from mmengine.runner import FlexibleRunner, Runner
from torch.distributed.fsdp import FullyShardedDataParallel

# SGD: AdamW would make steps of the size of the learning rate from gradients that are only rounding
# errors.
OPTIM_WRAPPER = dict(
    type='OptimWrapper',
    optimizer=dict(type='SGD', lr=0.1, momentum=0.9, weight_decay=0.05),
    paramwise_cfg=dict(norm_decay_mult=0.0),
    clip_grad=dict(max_norm=0.5),
)


class Record(Hook):
    """Keeps each step's gradients, clipped and averaged, and the weights after the last."""

    def __init__(self) -> None:
        self.gradients, self.norms, self.weights = [], [], {}

    def before_train(self, runner) -> None:
        self.runner = runner
        runner.optim_wrapper.optimizer.register_step_pre_hook(self._keep_gradients)

    def _keep_gradients(self, *_) -> None:
        model = self.runner.model
        if not isinstance(model, FullyShardedDataParallel):
            model = getattr(model, 'module', model)
            self.gradients.append({name: p.grad.clone() for name, p in model.named_parameters() if p.requires_grad})

    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None) -> None:
        self.norms.append(runner.message_hub.get_scalar('train/grad_norm').current().item())

    def after_train(self, runner) -> None:
        model = runner.model
        if isinstance(model, FullyShardedDataParallel):
            with FullyShardedDataParallel.summon_full_params(model, writeback=False):
                self.weights = {
                    name.replace('_fsdp_wrapped_module.', ''): value.detach().clone()
                    for name, value in model.named_parameters()
                }
        else:
            self.weights = {
                name: value.detach().clone() for name, value in getattr(model, 'module', model).named_parameters()
            }


def train(
    work_dir: Path,
    world_size: int,
    model: dict,
    dataset,
    batch_size: int,
    hooks: list,
    scope: str,
    strategy: dict | None = None,
    resume: str | None = None,
    load_from: str | None = None,
    max_iters: int = 3,
    optim_wrapper: dict | None = None,
    collate: str = 'default_collate',
    seed: int = 0,
) -> dict:
    """Train ``max_iters`` steps of ``batch_size`` samples of all processes; return the record."""
    record = Record()
    work_dir.mkdir(parents=True, exist_ok=True)
    cfg = dict(
        model=model,
        work_dir=str(work_dir),
        train_dataloader=dict(
            batch_size=batch_size // world_size,
            num_workers=0,
            dataset=dataset,
            collate_fn=dict(type=collate),
            sampler=dict(type='InfiniteSampler', shuffle=False),
        ),
        train_cfg=dict(by_epoch=False, max_iters=max_iters),
        optim_wrapper=optim_wrapper or OPTIM_WRAPPER,
        param_scheduler=[dict(type='LinearLR', start_factor=0.5, by_epoch=False, begin=0, end=6)],
        default_hooks=dict(
            checkpoint=dict(type='CheckpointHook', by_epoch=False, interval=2),
            logger=dict(type='LoggerHook', interval=1),
            random_state=dict(type='addp_mm.RandomStateHook'),
        ),
        log_processor=dict(by_epoch=False),
        custom_hooks=[*hooks, dict(type='addp_mm.PreflightHook')],
        default_scope=scope,
        log_level='ERROR',
        randomness=dict(seed=seed),
        experiment_name=work_dir.name,
        launcher='none' if world_size == 1 else 'pytorch',
        resume=bool(resume),
        load_from=resume or load_from,
        cfg=Config(),
    )
    if strategy:
        cfg['strategy'] = strategy
    runner = (FlexibleRunner if strategy else Runner)(**cfg)
    runner.register_hook(record)
    runner.train()
    sharded = strategy is not None and isinstance(runner.model, FullyShardedDataParallel)
    units = [type(m.module).__name__ for m in FullyShardedDataParallel.fsdp_modules(runner.model)] if sharded else []
    return dict(
        weights=record.weights,
        gradients=record.gradients,
        norms=record.norms,
        units=units,
        parameters_here=sum(p.numel() for p in runner.model.parameters() if p.requires_grad),
        settings=[
            sorted((key, value) for key, value in group.items() if isinstance(value, (int, float)))
            for group in runner.optim_wrapper.optimizer.param_groups
        ],
        dtypes=sorted({str(p.dtype) for p in runner.model.parameters()}),
    )
