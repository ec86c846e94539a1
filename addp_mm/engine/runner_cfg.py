# Copyright (c) addp_mm contributors. Apache-2.0.
"""Changes of a config by the command line tools, before they build the Runner."""

import os
from pathlib import Path

from mmengine.config import Config, ConfigDict
from mmengine.device import get_device
from mmengine.runner import Runner

from addp_mm.checks.training_loop import loop_of
from addp_mm.checks.weights import DEEPSPEED_FILES, require_checkpoint
from addp_mm.config.config_file import ConfigError
from addp_mm.config.nodes import node_at
from addp_mm.config.paths import require_writable_folder
from addp_mm.config.type_names import type_name
from addp_mm.engine.added_hooks import leave_out_none
from addp_mm.engine.cpu_memory import keep_freed_memory
from addp_mm.engine.latest_checkpoint import latest_checkpoint, require_whole
from addp_mm.engine.process_group import is_first_process, join_training
from addp_mm.engine.rank_watch import start_watch

_LOADER_TIMEOUT = 1800  # seconds; broken samples are replaced long before
_TIMEOUT_SECONDS = 1800  # for which processes wait for each other
_DRAW_INTERVAL = 100  # interval between drawn images of validation and test
_VISUALIZERS = {
    'mmpretrain': 'mmpretrain.UniversalVisualizer',
    'mmdet': 'mmdet.DetLocalVisualizer',
    'mmseg': 'mmseg.SegLocalVisualizer',
}
_DRAWING_HOOKS = {
    'mmpretrain': dict(type='mmpretrain.VisualizationHook', enable=True, interval=_DRAW_INTERVAL),
    'mmdet': dict(type='mmdet.DetVisualizationHook', draw=True, interval=_DRAW_INTERVAL),
    'mmseg': dict(type='mmseg.SegVisualizationHook', draw=True, interval=_DRAW_INTERVAL),
}
_NOT_DRAWING = ('type', 'enable', 'interval', 'priority')  # mmpretrain's hook passes its other arguments on


def set_work_dir(cfg: Config, work_dir: str | None, config_path: str) -> None:
    """Set the work dir.

    It is that of the command line, else that of the config, else
    ``work_dirs/<name of the config>``. Datasets of your own images keep their list and the record
    of broken images there.
    """
    cfg.work_dir = work_dir or cfg.get('work_dir') or str(Path('work_dirs') / Path(cfg.filename or config_path).stem)
    path = Path(cfg.work_dir)
    if path.exists() and not path.is_dir():
        raise ConfigError(f'work dir {path} is a file; name a folder with --work-dir')
    require_writable_folder(path, f'work dir {path}')
    for loader in ('train_dataloader', 'val_dataloader', 'test_dataloader'):
        _give_work_dir(cfg.get(loader), cfg.work_dir)


def _give_work_dir(part: object, work_dir: str) -> None:
    if isinstance(part, dict):
        if type_name(part.get('type')) in ('ImageFiles', 'LMDBImages', 'WebDatasetImages'):
            part.setdefault('work_dir', work_dir)
        part = list(part.values())
    for inner in part if isinstance(part, list) else ():
        _give_work_dir(inner, work_dir)


def set_resume(cfg: Config, resume: str | None) -> None:
    """Resume from a path, or with ``'auto'`` from the latest checkpoint of the work dir.

    Without a checkpoint, ``'auto'`` starts at the beginning (from the config's ``load_from``), so
    that you can give the same command again after every interruption.

    Raises:
        CheckpointError: The checkpoint is damaged; with ``'auto'`` all checkpoints are.
        ConfigError: The checkpoint does not exist.
    """
    if resume is None:
        if cfg.get('resume') and not cfg.get('load_from'):
            set_resume(cfg, 'auto')
        elif cfg.get('load_from'):
            cfg.load_from = require_checkpoint(cfg.load_from, 'load_from')
            if cfg.get('resume'):
                require_whole(cfg.load_from, 'load_from')
        return
    is_auto = resume == 'auto'
    if is_auto:
        latest = latest_checkpoint(cfg.work_dir)
        if latest is None:
            if is_first_process():
                print(f'--resume auto: {cfg.work_dir} has no checkpoint; training starts at the beginning')
            cfg.resume = False
            set_resume(cfg, None)
            return
        resume = latest
    resume = os.path.expanduser(resume)
    zero = type_name((cfg.get('strategy') or {}).get('type')) == 'ZeroStrategy'
    if not (zero and any(Path(resume).glob(DEEPSPEED_FILES))):
        require_checkpoint(resume, '--resume')
    if not is_auto:
        require_whole(resume, '--resume')
    cfg.resume, cfg.load_from = True, resume


def set_amp(cfg: Config, dtype: str | None) -> None:
    """Train in mixed precision.

    Args:
        cfg: The config.
        dtype: ``'bfloat16'``, without a loss scale, or ``'float16'``, with a dynamic loss scale;
            ``'float32'`` switches mixed precision off. None changes nothing.
    """
    if dtype is None:
        return
    for wrapper in _optim_wrappers(cfg):
        kind = type_name(wrapper.get('type', 'OptimWrapper'))
        if kind not in ('OptimWrapper', 'AmpOptimWrapper'):
            raise ConfigError(f'--amp replaces OptimWrapper; optim_wrapper.type is {kind}')
        if dtype == 'float32':
            wrapper['type'] = 'OptimWrapper'
            for option in ('dtype', 'loss_scale', 'use_fsdp'):  # AmpOptimWrapper's own
                wrapper.pop(option, None)
            continue
        wrapper.update(type='AmpOptimWrapper', dtype=dtype)
        if dtype == 'bfloat16':
            wrapper['loss_scale'] = dict(enabled=False)
        else:
            wrapper.setdefault('loss_scale', 'dynamic')


def set_auto_scale_lr(cfg: Config, wanted: bool) -> None:
    """Enable mmengine's ``auto_scale_lr``, and check that the learning rate can be scaled.

    Args:
        cfg: The config.
        wanted: Whether the command line asks for it. The config can enable it, too.

    Raises:
        ConfigError: The batch size of the learning rate is not known, or the optimizers have none
            in common.
    """
    scaling = cfg.get('auto_scale_lr') or {}
    if not (wanted or scaling.get('enable')):
        return
    option = '--auto-scale-lr' if wanted else 'auto_scale_lr.enable'
    if 'base_batch_size' not in scaling:
        raise ConfigError(
            f'{option}: the config does not contain the batch size of its learning rate; '
            'add auto_scale_lr = dict(base_batch_size=…)'
        )
    cfg.auto_scale_lr.enable = True
    counts = {wrapper.get('accumulative_counts', 1) for wrapper in _optim_wrappers(cfg)}
    if len(counts) > 1:
        raise ConfigError(
            f'{option}: the components in optim_wrapper differ in accumulative_counts '
            f'({sorted(counts)}), so they have no common batch size; set their learning rates by hand'
        )
    if type_name((cfg.get('strategy') or {}).get('type')) == 'ZeroStrategy':
        raise ConfigError(f'{option}: DeepSpeed does not scale the learning rate; set optim_wrapper.optimizer.lr')


def scale_by_optimizer_steps(runner: Runner) -> None:
    """Make mmengine scale the learning rate by the batch of an optimizer step.

    mmengine compares the batch of one pass with ``base_batch_size``, but an optimizer step
    accumulates several passes. Only the built runner is changed: the config that it has written
    can be used again.

    Args:
        runner: The runner, before its training.
    """
    scaling = getattr(runner, 'auto_scale_lr', getattr(runner, '_auto_scale_lr', None))
    if not scaling or not scaling.get('enable'):
        return
    passes = _optim_wrappers(runner.cfg)[0].get('accumulative_counts', 1)
    batch, base = runner.cfg.train_dataloader.batch_size, scaling['base_batch_size']
    total = batch * passes * runner.world_size
    scaling['base_batch_size'] = base / passes
    runner.logger.info(
        f'auto_scale_lr: batch_size {batch} x accumulative_counts {passes} x {runner.world_size} process(es) = {total} '
        f'images in one optimizer step; base_batch_size is {base}: the learning rate is multiplied by {total / base:g}'
    )


def set_log_counting(cfg: Config) -> None:
    """Count iterations in the log of a training by iterations, unless the config says otherwise.

    mmengine's default is epochs: it would write each validation at step 0.
    """
    loop = loop_of(cfg)
    if loop is None or loop.by_epoch:
        return
    cfg.log_processor = {'by_epoch': False, **(cfg.get('log_processor') or {})}
    hooks = cfg.setdefault('default_hooks', ConfigDict())
    logger = hooks.setdefault('logger', ConfigDict(type='LoggerHook'))
    if logger is not None:
        logger.setdefault('log_metric_by_epoch', False)


def _optim_wrappers(cfg: Config) -> list[dict]:
    """Configs of the optimizers: one for each component, or one for the whole model."""
    parts = [part for part in cfg.optim_wrapper.values() if isinstance(part, dict) and 'optimizer' in part]
    return parts or [cfg.optim_wrapper]


def set_visualization(cfg: Config, show_dir: str | None = None, testing: bool = False) -> None:
    """Choose the visualizer of the config's scope.

    It draws into the work dir and TensorBoard. A visualizer or a hook of the config is kept.

    Args:
        cfg: The config.
        show_dir: Folder for all drawn images of a test. Defaults to None: no such folder.
        testing: Whether the model is tested. A test without ``show_dir`` gets no drawing hook,
            because mmdet's hook would draw every image. Defaults to False.

    Raises:
        ConfigError: The predictions of this model cannot be drawn, or the folder cannot be written.
    """
    scope = cfg.get('default_scope')
    backends = [dict(type='LocalVisBackend'), dict(type='TensorboardVisBackend')]
    visualizer = cfg.get('visualizer') or ConfigDict(type='Visualizer', vis_backends=backends)
    if type_name(visualizer.type) == 'Visualizer' and scope in _VISUALIZERS:
        visualizer.type = _VISUALIZERS[scope]
    if not any('Tensorboard' in type_name(backend.type) for backend in visualizer.get('vis_backends') or []):
        visualizer.vis_backends = [*(visualizer.get('vis_backends') or backends[:1]), backends[1]]
    cfg.visualizer = visualizer

    hooks = cfg.setdefault('default_hooks', ConfigDict())
    # mmpretrain's hook can only draw the output of classifiers
    model = type_name(cfg.model.type)
    drawable = scope in _DRAWING_HOOKS and (scope != 'mmpretrain' or model.endswith('ImageClassifier'))
    if not hooks.get('visualization') and drawable and not (testing and show_dir is None):
        hooks.visualization = ConfigDict(_DRAWING_HOOKS[scope])
    if show_dir is None:
        return
    if not drawable:
        raise ConfigError(f'--show-dir: the output of {model} cannot be drawn (default_scope {scope!r})')
    folder = str(Path(show_dir).absolute())
    require_writable_folder(folder, f'--show-dir {show_dir}')
    hooks.visualization.interval = 1
    if type_name(hooks.visualization.type) == 'VisualizationHook':
        # mmpretrain's hook overwrites images of the same file name
        drawing = {key: value for key, value in hooks.visualization.items() if key not in _NOT_DRAWING}
        hooks.visualization = ConfigDict(drawing, type='addp_mm.DrawnImagesHook', out_dir=folder)
    elif scope == 'mmdet':
        hooks.visualization.update(draw=True, test_out_dir=folder)
    else:
        hooks.visualization.draw = True
        cfg.visualizer.save_dir = folder


def set_loader_timeouts(cfg: Config) -> None:
    """Let no data loader with workers wait for ever, unless the config sets its ``timeout``."""
    for name in ('train_dataloader', 'val_dataloader', 'test_dataloader', 'test_cfg.bank_dataloader'):
        loader = node_at(cfg, name)
        if isinstance(loader, dict) and loader.get('num_workers'):
            loader.setdefault('timeout', _LOADER_TIMEOUT)


def set_timeout(cfg: Config) -> None:
    """Set the time for which processes wait for each other, unless the config does.

    Raises:
        ConfigError: That of the config is not a number of seconds.
    """
    env_cfg = cfg.setdefault('env_cfg', ConfigDict())
    if env_cfg.get('dist_cfg') is None:
        env_cfg.dist_cfg = ConfigDict(backend='nccl')
    timeout = env_cfg.dist_cfg.setdefault('timeout', _TIMEOUT_SECONDS)
    if isinstance(timeout, bool) or not isinstance(timeout, int | float) or not timeout > 0:
        raise ConfigError(f'config: env_cfg.dist_cfg.timeout must be a number of seconds, not {timeout!r}')


def build_runner(cfg: Config) -> Runner:
    """Build the Runner that ``cfg.runner_type`` names, mmengine's own by default.

    Several processes join their group before, and watch each other from then on. On the CPU the
    process keeps its memory from then on.
    """
    leave_out_none(cfg)
    if get_device() == 'cpu':
        keep_freed_memory()
    zero = type_name((cfg.get('strategy') or {}).get('type')) == 'ZeroStrategy'
    if not zero:  # DeepSpeed makes its group itself
        join_training(cfg.launcher, **cfg.env_cfg.dist_cfg)
    watch = start_watch(cfg.env_cfg.dist_cfg.timeout)
    runner = _build(cfg)
    watch = watch or start_watch(cfg.env_cfg.dist_cfg.timeout)
    if watch is not None:
        watch.runner = runner
    return runner


def _build(cfg: Config) -> Runner:
    if 'runner_type' in cfg:
        from mmengine.registry import RUNNERS

        return RUNNERS.build(cfg)
    return Runner.from_cfg(cfg)
