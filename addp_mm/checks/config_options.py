# Copyright (c) addp_mm contributors. Apache-2.0.
"""Finds misspelt arguments in a whole config before anything is built."""

import inspect
from collections.abc import Iterator
from typing import Any

from mmengine import registry as roots
from mmengine.config import Config
from torch.utils.data import DataLoader

from addp_mm.checks.signature import Arguments, accepted_arguments
from addp_mm.config.config_file import ConfigError, runner_arguments, suggest

# Registries a section of the config builds from. In a model also parts that are no modules appear:
# assigners, coders. In an evaluator, networks whose features it compares.
_SECTIONS = {
    'model': ('MODELS', 'TASK_UTILS'),
    'optim_wrapper': ('OPTIM_WRAPPERS', 'OPTIMIZERS'),
    'param_scheduler': ('PARAM_SCHEDULERS',),
    'default_hooks': ('HOOKS',),
    'custom_hooks': ('HOOKS',),
    'visualizer': ('VISUALIZERS', 'VISBACKENDS'),
    'train_cfg': ('LOOPS',),
    'val_cfg': ('LOOPS',),
    'test_cfg': ('LOOPS',),
    'val_evaluator': ('METRICS', 'EVALUATOR', 'MODELS'),
    'test_evaluator': ('METRICS', 'EVALUATOR', 'MODELS'),
    'strategy': ('STRATEGIES', 'MODEL_WRAPPERS'),
}
_LISTS = ('custom_hooks', 'param_scheduler', 'vis_backends', 'visualizer.vis_backends')
_LEAVES = ('TRANSFORMS', 'HOOKS', 'METRICS', 'OPTIMIZERS')
_LOADERS = ('train_dataloader', 'val_dataloader', 'test_dataloader')
# Arguments that builders read beside the class's own.
_BUILDER_KEYS = {
    'type',
    '_scope_',
    '_delete_',
    'name',
    'priority',
    'constructor',
    'paramwise_cfg',
    'optimizer',
    'convert_to_iter_based',
    'init_cfg',
    'metainfo',
    'bg_cls_weight',
}
# Sub-dicts that layers interpret themselves (shorthand types, extra keys).
_SHORTHAND = (
    'norm_cfg',
    'act_cfg',
    'conv_cfg',
    'init_cfg',
    'upsample_cfg',
    'dropout_layer',
    'plugins',
    'padding_cfg',
    'ffn_cfgs',
    'attn_cfgs',
    'transformerlayers',
    'policies',
    'vision_encoder',
    'dcn',
)
_PLAIN_KEYS = {
    'randomness': {'seed', 'diff_rank_seed', 'deterministic'},
    'auto_scale_lr': {'enable', 'base_batch_size'},
    'train_cfg': {
        'type',
        'by_epoch',
        'max_epochs',
        'max_iters',
        'val_begin',
        'val_interval',
        'dynamic_intervals',
        'dynamic_intervals_list',
    },
}
_LOADER_KEYS = set(inspect.signature(DataLoader.__init__).parameters) - {'self'} | {'num_batch_per_epoch'}


def _resolve(kind, registries: tuple[str, ...], scope: str) -> tuple[Any, str]:
    """The class or function that ``kind`` names, and the registry that has it; (None, '') where none has."""
    for name in registries:
        with getattr(roots, name).switch_scope_and_registry(scope) as registry:
            found = registry.get(kind if isinstance(kind, str) else getattr(kind, '__name__', ''))
        if found is not None and (isinstance(kind, str) or found is kind):
            return found, name
    return (None, '') if isinstance(kind, str) else (kind, '')


def _nodes(node, path: str) -> Iterator[tuple[str, dict]]:
    """Yield every dict under ``node`` that has a ``type``, with its dotted path."""
    if isinstance(node, dict):
        if 'type' in node:
            yield path, node
        for key, value in node.items():
            if key not in _SHORTHAND:
                yield from _nodes(value, f'{path}.{key}')
    elif isinstance(node, (list, tuple)):
        for index, value in enumerate(node):
            yield from _nodes(value, f'{path}.{index}')


def _check_section(section, path: str, registries: tuple[str, ...], scope: str) -> None:
    for where, node in _nodes(section, path):
        target, registry = _resolve(node['type'], registries, node.get('_scope_', scope))
        if target is None:
            continue
        accepted = accepted_arguments(target)
        for key in node:
            if key in accepted.names or key in _BUILDER_KEYS:
                continue
            certain = registry in _LEAVES or str(target.__module__).startswith('addp_mm.')
            hint = _hint(key, accepted, certain)
            if hint:
                name = node['type'] if isinstance(node['type'], str) else target.__name__
                raise ConfigError(f'config: {where}.{key} is no argument of {name}{hint}')


def _hint(key: str, accepted: Arguments, certain: bool) -> str:
    """What to say about an unknown ``key``; nothing where it may be right after all.

    A part may read keys of a part below before it builds that, and an open-ended class takes any:
    there only a name much like a known one is surely a mistake. It is ``certain`` that the
    package's own classes do neither, and that nothing reads the keys of a transform, hook, metric
    or optimizer but the class.
    """
    if accepted.open_ended:
        return suggest(key, accepted.names, cutoff=0.88)
    if certain:
        taken = ', '.join(sorted(accepted.names)) or 'no arguments'
        return suggest(key, accepted.names) or f'; it takes {taken}'
    return suggest(key, accepted.names, cutoff=0.75)


def _check_loader(loader: dict, path: str, scope: str) -> None:
    for key in loader:
        if key not in _LOADER_KEYS:
            raise ConfigError(f'config: {path}.{key} is no option of a data loader{suggest(key, _LOADER_KEYS)}')
    _check_section(loader.get('dataset'), f'{path}.dataset', ('DATASETS', 'TRANSFORMS'), scope)
    for part in ('sampler', 'batch_sampler'):
        _check_section(loader.get(part), f'{path}.{part}', ('DATA_SAMPLERS',), scope)


def _check_lists(cfg: Config) -> None:
    """Refuse entries that are no dicts, such as the strings that mmengine makes of ``dict(…)`` in an option."""
    for name in _LISTS:
        node = cfg
        for part in name.split('.'):
            node = node.get(part) if isinstance(node, dict | Config) else None
        entries = node if isinstance(node, list | tuple) else [node]
        for entry in entries:
            if entry is not None and not isinstance(entry, dict):
                raise ConfigError(
                    f'config: {name} holds {entry!r}, which is no dict. Dicts cannot be written in '
                    f'--cfg-options: write it into a config file, or change a part of one that is there '
                    f'by {name}.0.KEY=VALUE'
                )


def _check_top_level(cfg: Config, needed: tuple[str, ...]) -> None:
    known = runner_arguments()
    for name in needed:
        if cfg.get(name) is None:
            raise ConfigError(f'config: {name!r} is missing{suggest(name, set(cfg.keys()) - known)}')
    absent = {name for name in known - set(cfg.keys()) if not name.startswith('tta_')}
    for name in cfg:
        hint = suggest(name, absent, cutoff=0.88)
        if name not in known and hint:
            raise ConfigError(f'config: nothing reads {name!r}{hint}')
    for section, keys in _PLAIN_KEYS.items():
        node = cfg.get(section)
        if not isinstance(node, dict) or 'type' in node:
            continue
        for key in node:
            if key not in keys:
                raise ConfigError(f'config: {section}.{key} is no option of {section}{suggest(key, keys)}')


def check_config(cfg: Config, needed: tuple[str, ...] = ('model',)) -> None:
    """Compare the arguments that ``cfg`` gives with those that its classes take.

    Args:
        cfg: The whole config, options merged. Its ``default_scope`` says where bare type names are
            looked up.
        needed: Top-level parts that must be there.

    Raises:
        ConfigError: A part is missing or an argument is unknown; names the key and the nearest
            known ones.
    """
    scope = cfg.get('default_scope') or 'mmengine'
    _check_top_level(cfg, needed)
    _check_lists(cfg)
    for section, registries in _SECTIONS.items():
        if cfg.get(section) is not None:
            _check_section(cfg[section], section, registries, scope)
    for section in _LOADERS:
        if isinstance(cfg.get(section), dict):
            _check_loader(cfg[section], section, scope)
