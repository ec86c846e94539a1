# Copyright (c) addp_mm contributors. Apache-2.0.
"""Changes of a config by the command line tools, before they build the Runner."""

import os
import re
from pathlib import Path

from mmengine.config import Config, ConfigDict
from mmengine.runner import Runner, find_latest_checkpoint

from addp_mm.checks.weights import DEEPSPEED_FILES, require_checkpoint
from addp_mm.config.config_file import ConfigError
from addp_mm.config.paths import require_writable_folder
from addp_mm.config.type_names import type_name

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
    """
    if resume is None:
        if cfg.get('resume') and not cfg.get('load_from'):
            set_resume(cfg, 'auto')
        elif cfg.get('load_from'):
            cfg.load_from = require_checkpoint(cfg.load_from, 'load_from')
        return
    if resume == 'auto':
        latest = _latest_checkpoint(cfg.work_dir)
        if latest is None:
            print(f'--resume auto: {cfg.work_dir} has no checkpoint; training starts at the beginning')
            cfg.resume = False
            set_resume(cfg, None)
            return
        resume = latest
    resume = os.path.expanduser(resume)
    zero = type_name((cfg.get('strategy') or {}).get('type')) == 'ZeroStrategy'
    if not (zero and any(Path(resume).glob(DEEPSPEED_FILES))):
        require_checkpoint(resume, '--resume')
    cfg.resume, cfg.load_from = True, resume


def _latest_checkpoint(work_dir: str) -> str | None:
    """The checkpoint that the file ``last_checkpoint`` names, if the file exists.

    If the work dir was moved, it is the checkpoint of that name in the work dir. If the process was
    killed while it wrote the name, it is the newest checkpoint.
    """
    named = find_latest_checkpoint(work_dir)
    if named is None or named and Path(named).exists():
        return named
    numbers = {
        path: int(number[1])
        for path in Path(work_dir).iterdir()
        if (number := re.fullmatch(r'(?:epoch|iter)_(\d+)(?:\.pth)?', path.name))
    }
    moved = Path(work_dir) / Path(named).name
    found = moved if named and moved.exists() else max(numbers, key=lambda path: numbers[path], default=None)
    if found is None:
        return named or None
    print(f'--resume auto: last_checkpoint of {work_dir} names {named or "nothing"}; training continues from {found}')
    return str(found)


def set_amp(cfg: Config, dtype: str | None) -> None:
    """Train in mixed precision.

    Args:
        cfg: The config.
        dtype: ``'bfloat16'``, without a loss scale, or ``'float16'``, with a dynamic loss scale.
            None changes nothing.
    """
    if dtype is None:
        return
    for wrapper in _optim_wrappers(cfg):
        kind = type_name(wrapper.get('type', 'OptimWrapper'))
        if kind not in ('OptimWrapper', 'AmpOptimWrapper'):
            raise ConfigError(f'--amp replaces OptimWrapper; optim_wrapper.type is {kind}')
        wrapper.update(type='AmpOptimWrapper', dtype=dtype)
        if dtype == 'bfloat16':
            wrapper['loss_scale'] = dict(enabled=False)
        else:
            wrapper.setdefault('loss_scale', 'dynamic')


def set_auto_scale_lr(cfg: Config) -> None:
    """Scale the learning rate with the batch of all processes (mmengine's ``auto_scale_lr``)."""
    if 'base_batch_size' not in (cfg.get('auto_scale_lr') or {}):
        raise ConfigError(
            '--auto-scale-lr: the config does not contain the batch size of its learning rate; '
            'add auto_scale_lr = dict(base_batch_size=…)'
        )
    if cfg.auto_scale_lr.get('enable'):
        return
    cfg.auto_scale_lr.enable = True
    # mmengine compares with the batch of one pass, but an optimizer step accumulates several passes
    counts = {wrapper.get('accumulative_counts', 1) for wrapper in _optim_wrappers(cfg)}
    if len(counts) > 1:
        raise ConfigError(
            '--auto-scale-lr: the components in optim_wrapper differ in accumulative_counts '
            f'({sorted(counts)}), so they have no common batch size; set their learning rates by hand'
        )
    if counts != {1}:
        cfg.auto_scale_lr.base_batch_size /= counts.pop()


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


def set_preflight(cfg: Config, testing: bool = False) -> None:
    """Register :class:`addp_mm.engine.hooks.PreflightHook` once."""
    others = [hook for hook in cfg.get('custom_hooks') or [] if type_name(hook.get('type')) != 'PreflightHook']
    cfg.custom_hooks = [*others, dict(type='addp_mm.PreflightHook', testing=testing)]


def build_runner(cfg: Config) -> Runner:
    """Build the Runner that ``cfg.runner_type`` names, mmengine's own by default."""
    if 'runner_type' in cfg:
        from mmengine.registry import RUNNERS

        return RUNNERS.build(cfg)
    return Runner.from_cfg(cfg)
