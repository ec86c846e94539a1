# Copyright (c) addp_mm contributors. Apache-2.0.
"""Find misspelt arguments in a whole config, before anything is built."""

import difflib
import inspect
import math
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

from mmengine import registry as roots
from mmengine.config import Config
from torch.utils.data import DataLoader

from addp_mm.checks.signature import Arguments, accepted_arguments
from addp_mm.checks.type_lookup import find_type
from addp_mm.config.options import runner_arguments
from addp_mm.config.type_names import type_name
from addp_mm.errors import ConfigError, suggest

# Registries that build a section of the config. A model also contains objects that are not modules,
# such as assigners and coders; an evaluator may contain networks.
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
    'log_processor': ('LOG_PROCESSORS',),
}
_LISTS = ('custom_hooks', 'param_scheduler', 'vis_backends', 'visualizer.vis_backends')
_LEAVES = ('TRANSFORMS', 'HOOKS', 'METRICS', 'OPTIMIZERS')
_LOADERS = ('train_dataloader', 'val_dataloader', 'test_dataloader')
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
# smallest value and type
_NUMBERS: dict[str, tuple[int, type]] = {
    'train_cfg.max_iters': (1, int),
    'train_cfg.max_epochs': (1, int),
    'train_cfg.val_interval': (1, int),
    'optim_wrapper.optimizer.lr': (0, float),
    'optim_wrapper.accumulative_counts': (1, int),
    'default_hooks.logger.interval': (1, int),
    'default_hooks.checkpoint.interval': (1, int),
    'randomness.seed': (0, int),
    **{f'{loader}.batch_size': (1, int) for loader in _LOADERS},
    **{f'{loader}.num_workers': (0, int) for loader in _LOADERS},
}
# Values outside of these ranges that switch something off.
_OFF: dict[str, Callable[[Config, Any], bool]] = {
    'train_cfg.val_interval': lambda cfg, _: cfg.get('val_dataloader') is None,
    'default_hooks.checkpoint.interval': lambda _, value: value == -1,
}
_HINTS = {
    'train_cfg.val_interval': '. To train without validation: val_dataloader=None val_cfg=None val_evaluator=None',
    'default_hooks.checkpoint.interval': '. To save only at the end: -1',
}
# Sections of a config that are all needed, or all None.
_TOGETHER = (
    ('train_dataloader', 'train_cfg', 'optim_wrapper'),
    ('val_dataloader', 'val_cfg', 'val_evaluator'),
    ('test_dataloader', 'test_cfg', 'test_evaluator'),
)
_LOADER_KEYS = set(inspect.signature(DataLoader.__init__).parameters) - {'self'} | {'num_batch_per_epoch'}


def _resolve(kind: str | type, registries: tuple[str, ...], scope: str) -> tuple[Any, str]:
    """The class or function of ``kind``, and its registry ('' if it is not registered)."""
    name = kind if isinstance(kind, str) else getattr(kind, '__name__', '')
    for registry in registries:
        found = find_type(name, getattr(roots, registry), scope)
        if found is not None and (isinstance(kind, str) or found is kind):
            return found, registry
    return (None if isinstance(kind, str) else kind), ''


def _similar_types(name: str, registries: tuple[str, ...], scope: str) -> str:
    """``'; did you mean a?'`` for a misspelt type, or one without its scope; else ''."""
    plain = type_name(name)
    names: dict[str, str] = {}
    for root in (getattr(roots, registry) for registry in registries):
        for registry in (root, *root.children.values()):
            registry.get(plain)  # makes the registry import the modules of its classes
            for known in registry.module_dict:
                names.setdefault(known, known if registry.scope in (scope, root.scope) else f'{registry.scope}.{known}')
    near = [plain] if plain in names else difflib.get_close_matches(plain, names, n=3, cutoff=0.85)
    return f'; did you mean {", ".join(names[one] for one in near)}?' if near else ''


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
            near = _similar_types(node['type'], registries, scope)
            if near:
                raise ConfigError(f'config: {where}.type={node["type"]!r} is not registered{near}')
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
        node = cfg
        for part in name.split('.'):
            node = node.get(part) if isinstance(node, dict | Config) else None
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


def check_numbers(cfg: Config) -> None:
    """Refuse impossible values, and values that are not numbers, for numbers of a training.

    A whole number that is written as a float, such as ``1e4``, becomes an integer.

    Raises:
        ConfigError: A value is wrong. The message names the key.
    """
    for name, (least, number) in _NUMBERS.items():
        node: Any = cfg
        *parents, key = name.split('.')
        for part in parents:
            node = (node.get(part) if isinstance(node, dict | Config) else None) or {}
        value = node.get(key)
        if value is None or name in _OFF and _OFF[name](cfg, value):
            continue
        is_number = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
        if not is_number or value < least or value != number(value):
            kind = 'a whole number' if number is int else 'a number'
            raise ConfigError(f'config: {name} must be {kind} of at least {least}, got {value!r}{_HINTS.get(name, "")}')
        if number is int:
            node[key] = int(value)
    seed = (cfg.get('randomness') or {}).get('seed') or 0
    if seed >= 2**32:
        raise ConfigError(f'config: randomness.seed must be at most {2**32 - 1}, got {seed}')


def check_sections(cfg: Config) -> None:
    """Refuse a config that has only a part of what a training, validation or test needs.

    Raises:
        ConfigError: A section is missing. The message names all that belong together.
    """
    for names in _TOGETHER:
        absent = [name for name in names if cfg.get(name) is None]
        if absent and len(absent) < len(names):
            given = ' and '.join(name for name in names if name not in absent)
            off = ' '.join(f'{name}=None' for name in names)
            raise ConfigError(
                f'config: {" and ".join(f"{name}=None" for name in absent)}, but the config has {given}. Give all '
                f'three, or switch them off together: {off}'
            )


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
    for section, registries in _SECTIONS.items():
        if cfg.get(section) is not None:
            yield partial(_check_section, cfg[section], section, registries, scope)
    for section in _LOADERS:
        if isinstance(cfg.get(section), dict):
            yield partial(_check_loader, cfg[section], section, scope)


def class_at(cfg: Config, key: str) -> Any:
    """The class or function to which a key of a config is an argument; None if it is not known.

    Args:
        cfg: The config.
        key: A key such as ``'model.backbone.patch_size'``; the config need not have its last part.
    """
    section, *inner = key.split('.')[:-1] or ['']
    node: Any = cfg.get(section)
    for part in inner:
        if isinstance(node, dict):
            node = node.get(part)
        else:
            node = node[int(part)] if isinstance(node, list | tuple) and part.isdigit() else None
    if not isinstance(node, dict) or 'type' not in node:
        return None
    registries = _SECTIONS.get(section, ())
    if section in _LOADERS:
        registries = ('DATASETS', 'TRANSFORMS') if inner[:1] == ['dataset'] else ('DATA_SAMPLERS',)
    scope = node.get('_scope_', cfg.get('default_scope') or 'mmengine')
    return _resolve(node['type'], registries, scope)[0]
