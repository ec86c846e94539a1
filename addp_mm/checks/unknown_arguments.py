# Copyright (c) addp_mm contributors. Apache-2.0.
"""Find misspelt arguments and types in a whole config, before anything is built."""

import inspect
from collections.abc import Callable, Iterator
from functools import partial

from mmengine.config import Config
from torch.utils.data import DataLoader

from addp_mm.checks.config_classes import DATA_LOADERS, SECTIONS, resolve
from addp_mm.checks.signature import Arguments, accepted_arguments
from addp_mm.checks.unknown_types import check_other_types, refuse_unknown_type
from addp_mm.config.nodes import node_at
from addp_mm.config.options import runner_arguments
from addp_mm.errors import ConfigError, suggest

_LISTS = ('custom_hooks', 'param_scheduler', 'vis_backends', 'visualizer.vis_backends')
_LEAVES = ('TRANSFORMS', 'HOOKS', 'METRICS', 'OPTIMIZERS')
# Keys that builders read in addition to the arguments of the class.
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
# Dicts that layers read themselves, with short type names or more keys.
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
    'val_cfg': {'type', 'fp16'},
    'test_cfg': {'type', 'fp16'},
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
        kind = node['type']
        if kind is not None and not (kind if isinstance(kind, str) else callable(kind)):
            raise ConfigError(f'config: {where}.type is {kind!r:.60}; it must be the name of a class')
        target, registry = resolve(node['type'], registries, node.get('_scope_', scope))
        if target is None:
            refuse_unknown_type(where, node['type'], registries, node.get('_scope_', scope))
            continue
        accepted = accepted_arguments(target)
        for key in node:
            if key in accepted.names or key in _BUILDER_KEYS:
                continue
            certain = registry in _LEAVES or str(target.__module__).startswith('addp_mm.')
            hint = _hint(key, accepted, certain)
            if hint:
                name = node['type'] if isinstance(node['type'], str) else target.__name__
                raise ConfigError(f'config: {where}.{key} is not an argument of {name}{hint}')


def _hint(key: str, accepted: Arguments, certain: bool) -> str:
    """The end of the message about an unknown ``key``; '' if the key may be correct.

    An open-ended class takes any key, and a module may read keys for its submodules. In these cases
    only a key that is similar to a known argument is refused.

    Args:
        key: The unknown key.
        accepted: Arguments of the class.
        certain: Whether only the class itself reads its keys: it is one of addp_mm, or a transform,
            hook, metric or optimizer.
    """
    if accepted.open_ended:
        return suggest(key, accepted.names, cutoff=0.85)  # e.g. two of seven letters in the wrong order
    if certain:
        taken = ', '.join(sorted(accepted.names)) or 'no arguments'
        return suggest(key, accepted.names) or f'; it takes {taken}'
    return suggest(key, accepted.names, cutoff=0.75)


def _check_loader(loader: dict, path: str, scope: str) -> None:
    for key in loader:
        if key not in _LOADER_KEYS:
            raise ConfigError(f'config: {path}.{key} is not an option of a data loader{suggest(key, _LOADER_KEYS)}')
    _check_section(loader.get('dataset'), f'{path}.dataset', ('DATASETS', 'TRANSFORMS'), scope)
    for part in ('sampler', 'batch_sampler'):
        _check_section(loader.get(part), f'{path}.{part}', ('DATA_SAMPLERS',), scope)


def _check_lists(cfg: Config) -> None:
    """Refuse entries that are not dicts."""
    for name in _LISTS:
        node = node_at(cfg, name)
        entries = node if isinstance(node, list | tuple) else [node]
        if name == 'custom_hooks' and isinstance(node, dict):
            raise ConfigError(f"config: {name} must be a list of dicts. Give a list, '{name}=[dict(type=…)]'")
        for entry in entries:
            if entry is not None and not isinstance(entry, dict):
                raise ConfigError(
                    f'config: {name} contains {entry!r}, which is not a dict. Give dicts, '
                    f"'{name}=[dict(type=…)]', or change a key of an existing entry with {name}.0.KEY=VALUE"
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
            raise ConfigError(f'config: {name!r} is not a key of a config{hint}')
    for section, keys in _PLAIN_KEYS.items():
        node = cfg.get(section)
        if not isinstance(node, dict) or 'type' in node:
            continue
        for key in node:
            if key not in keys:
                raise ConfigError(f'config: {section}.{key} is not an option of {section}{suggest(key, keys)}')


def check_config(cfg: Config, needed: tuple[str, ...] = ('model',)) -> None:
    """Compare the arguments in a config with those that its classes take.

    Args:
        cfg: The whole config with options merged. Type names without a package are looked up in its
            ``default_scope``.
        needed: Top-level keys that the config must have. Defaults to ('model',).

    Raises:
        ConfigError: A key is missing or an argument is unknown. The message names the key and
            similar ones.
    """
    for check in config_checks(cfg, needed):
        check()


def config_checks(cfg: Config, needed: tuple[str, ...] = ('model',)) -> Iterator[Callable[[], None]]:
    """Yield the parts of :func:`check_config`, one for each section; same arguments."""
    scope = cfg.get('default_scope') or 'mmengine'
    yield partial(_check_top_level, cfg, needed)
    yield partial(_check_lists, cfg)
    yield partial(check_other_types, cfg, scope)
    for section, registries in SECTIONS.items():
        if cfg.get(section) is not None:
            yield partial(_check_section, cfg[section], section, registries, scope)
    for section in DATA_LOADERS:
        if isinstance(cfg.get(section), dict):
            yield partial(_check_loader, cfg[section], section, scope)
