# Copyright (c) addp_mm contributors. Apache-2.0.
"""Check the options of optimizers and schedules before anything is built."""

from __future__ import annotations

import copy
import inspect
import warnings
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch
from mmengine.config import Config
from mmengine.optim import DefaultOptimWrapperConstructor
from mmengine.registry import OPTIM_WRAPPER_CONSTRUCTORS, OPTIMIZERS, PARAM_SCHEDULERS
from torch import nn
from torch.optim import Optimizer

from addp_mm.checks.training_loop import loop_of, schedulers_of
from addp_mm.checks.type_lookup import find_type
from addp_mm.config.type_names import type_name
from addp_mm.errors import ConfigError, suggest

_CLIPPING: dict[str, Callable] = dict(norm=nn.utils.clip_grad_norm_, value=nn.utils.clip_grad_value_)
# Constructors that read options without asking whether they are set.
_LAYER_DECAY: dict[str, tuple[str, ...]] = {
    'LearningRateDecayOptimWrapperConstructor': (),
    'LearningRateDecayOptimizerConstructor': ('num_layers', 'decay_rate'),
    'LayerDecayOptimizerConstructor': ('num_layers', 'layer_decay_rate'),
}
_DECAY_RATES = ('layer_decay_rate', 'decay_rate')
_EPOCH_LENGTH = 100  # for schedules that are converted from epochs; the real number is not known yet
_STEPS = 3  # of a schedule: a period of 0 fails at the second


def check_optimizer(cfg: Config) -> None:
    """Check the optimizers of a config and its schedules, with one small parameter.

    Optimizers and schedules are built as the Runner builds them, so that their own checks apply.
    Optimizers that are not registered, and schedules of an optimizer of an unknown kind, are left
    out.

    Args:
        cfg: The whole config.

    Raises:
        ConfigError: An option is missing or wrong. The message names the key.
    """
    wrapper = cfg.get('optim_wrapper')
    optimizers: dict[str, Optimizer | None] = {}
    for path, part in _wrappers(wrapper):
        _check_layer_decay(path, part)
        _check_ignored_decay(path, part)
        _check_multipliers(path, part)
        _check_clipping(f'{path}.clip_grad', part.get('clip_grad'))
        optimizers[path.partition('.')[2]] = _optimizer(f'{path}.optimizer', part['optimizer'])
    for path, scheduler in schedulers_of(cfg):
        names = [name for name in path.split('.')[1:2] if not name.isdigit()]  # none: for all optimizers
        for name in names or optimizers:
            optimizer = optimizers.get(name)
            if optimizer is not None:
                _check_schedule(path, scheduler, copy.deepcopy(optimizer), cfg)


def _wrappers(wrapper: Any) -> Iterator[tuple[str, Mapping]]:
    """Yield the optimizer wrappers: one for the whole model, or one for each component."""
    if not isinstance(wrapper, Mapping):
        return
    if isinstance(wrapper.get('optimizer'), Mapping):
        yield 'optim_wrapper', wrapper
        return
    for name, part in wrapper.items():
        if isinstance(part, Mapping) and isinstance(part.get('optimizer'), Mapping):
            yield f'optim_wrapper.{name}', part


def _check_multipliers(path: str, wrapper: Mapping) -> None:
    """Check that there is a value for each multiplier in ``paramwise_cfg``."""
    paramwise, optimizer = wrapper.get('paramwise_cfg'), wrapper['optimizer']
    kind = find_type(wrapper.get('constructor', 'DefaultOptimWrapperConstructor'), OPTIM_WRAPPER_CONSTRUCTORS)
    if not paramwise or not inspect.isclass(kind) or not issubclass(kind, DefaultOptimWrapperConstructor):
        return
    custom = paramwise.get('custom_keys', {}) if isinstance(paramwise, Mapping) else None
    if not isinstance(custom, Mapping) or not all(isinstance(one, Mapping) for one in custom.values()):
        raise ConfigError(
            f'config: {path}.paramwise_cfg must be a dict, and its custom_keys a dict of dicts, such as '
            "custom_keys={'backbone': dict(lr_mult=0.1)}"
        )
    keys = [f'{path}.paramwise_cfg.{key}' for key in paramwise]
    keys += [f'{path}.paramwise_cfg.custom_keys.{name}.{key}' for name, one in custom.items() for key in one]
    needs = dict(weight_decay=('_decay_mult', '.decay_mult'), lr=('lr_mult', '.layer_decay_rate', '.num_layers'))
    for option, ends in needs.items():
        multiplier = next((key for key in keys if key.endswith(ends)), None)
        if multiplier and optimizer.get(option) is None:
            value = '0.0, for none,' if option == 'weight_decay' else 'such as 1e-3,'
            raise ConfigError(
                f'config: {multiplier} multiplies {path}.optimizer.{option}, which is not set. Set '
                f'{path}.optimizer.{option} ({value} if you do not know another value), or remove {multiplier}'
            )


def _check_layer_decay(path: str, wrapper: Mapping) -> None:
    """Check what the packages' constructors for layer decay read."""
    constructor = wrapper.get('constructor')
    name = type_name(constructor)
    kind = find_type(constructor, OPTIM_WRAPPER_CONSTRUCTORS)
    if name not in _LAYER_DECAY or not str(getattr(kind, '__module__', '')).startswith('mm'):
        return
    given = {f'paramwise_cfg.{key}': value for key, value in (wrapper.get('paramwise_cfg') or {}).items()}
    given |= {f'optimizer.{key}': value for key, value in wrapper['optimizer'].items()}
    for key in (
        'optimizer.lr',
        'optimizer.weight_decay',
        *(f'paramwise_cfg.{option}' for option in _LAYER_DECAY[name]),
    ):
        if given.get(key) is None:
            raise ConfigError(f'config: {path}.constructor {name} needs {path}.{key}, which is not set')


def _check_ignored_decay(path: str, wrapper: Mapping) -> None:
    """Refuse a rate of layer decay that mmengine's own constructor would ignore."""
    kind = find_type(wrapper.get('constructor', 'DefaultOptimWrapperConstructor'), OPTIM_WRAPPER_CONSTRUCTORS)
    paramwise = wrapper.get('paramwise_cfg')
    if kind is not DefaultOptimWrapperConstructor or not isinstance(paramwise, Mapping):
        return
    for key in _DECAY_RATES:
        if key in paramwise:
            raise ConfigError(
                f'config: {path}.paramwise_cfg.{key} has no effect, because {path} has no constructor that reads it. '
                f'Set {path}.constructor=addp_mm.LayerDecayOptimWrapperConstructor'
            )


def _check_clipping(path: str, clipping: Any) -> None:
    """Check the arguments of torch's clipping functions, which the first step would refuse."""
    if clipping is None:
        return
    example = f'{path} must be a dict such as dict(max_norm=1.0)'
    if not isinstance(clipping, Mapping):
        raise ConfigError(f'config: {example}, got {clipping!r}')
    kind = clipping.get('type', 'norm')
    if kind not in _CLIPPING:
        raise ConfigError(f"config: {path}.type must be 'norm' or 'value', got {kind!r}")
    parameters = dict(list(inspect.signature(_CLIPPING[kind]).parameters.items())[1:])
    for key in clipping:
        if key != 'type' and key not in parameters:
            taken = ', '.join(parameters)
            raise ConfigError(f'config: {path}.{key} is not an option: it takes {taken}{suggest(key, parameters)}')
    needed = [name for name, one in parameters.items() if one.default is one.empty and clipping.get(name) is None]
    if needed:
        raise ConfigError(f'config: {path} needs {needed[0]}, such as {path}.{needed[0]}=1.0')


def _optimizer(path: str, cfg: Mapping) -> Optimizer | None:
    """The optimizer of one small parameter; None if its class is unknown."""
    kind = find_type(cfg.get('type'), OPTIMIZERS)
    if not inspect.isclass(kind) or not issubclass(kind, Optimizer):
        return None
    first = next(iter(inspect.signature(kind).parameters))
    parameter = nn.Parameter(torch.zeros(2, 2))
    return _build(path, OPTIMIZERS, {**copy.deepcopy(dict(cfg)), first: [dict(params=[parameter])]})


def _check_schedule(path: str, scheduler: Mapping, optimizer: Optimizer, cfg: Config) -> None:
    if isinstance(scheduler.get('T_max'), int) and scheduler['T_max'] < 0:  # mmengine takes it, and the rate grows
        raise ConfigError(f'config: {path}.T_max must be positive, got {scheduler["T_max"]}')
    loop = loop_of(cfg)
    built = {**copy.deepcopy(dict(scheduler)), 'optimizer': optimizer, 'epoch_length': _EPOCH_LENGTH}
    if loop is not None:
        # as the Runner does: a loop of iterations is one epoch
        in_units = loop.total if bool(scheduler.get('by_epoch', True)) == loop.by_epoch else None
        built.setdefault('end', in_units or (1 if not loop.by_epoch else loop.total * _EPOCH_LENGTH))
    _build(path, PARAM_SCHEDULERS, built, steps=_STEPS)


def _build(path: str, registry: Any, cfg: dict, steps: int = 0) -> Any:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter('ignore')
            built = registry.build(cfg)
            for _ in range(0 if getattr(built, 'need_val_args', False) else steps):
                built.step()
    except Exception as error:  # any class, also of another package
        text = str(error.args[0]) if error.args else type(error).__name__
        raise ConfigError(f'config: {path} cannot be built: {text}') from error
    return built
