# Copyright (c) addp_mm contributors. Apache-2.0.
"""Name the section of a config whose object another package cannot build."""

from __future__ import annotations

import re
import traceback
from collections.abc import Iterator
from contextlib import contextmanager

from mmengine import registry as registries
from mmengine.config import Config
from mmengine.hooks import Hook
from mmengine.runner import FlexibleRunner, Runner

from addp_mm.checks.unknown_types import similar_types
from addp_mm.config.nodes import nodes_below
from addp_mm.config.registered_types import reason_not_found
from addp_mm.config.type_names import type_name
from addp_mm.errors import ConfigError, UserError, first_few

# Methods of Runner and FlexibleRunner, and of strategies, that build one section.
_BUILDERS = {
    'build_train_loop': 'train_cfg',
    'build_val_loop': 'val_cfg',
    'build_test_loop': 'test_cfg',
    'build_optim_wrapper': 'optim_wrapper',
    'build_param_scheduler': 'param_scheduler',
    'build_log_processor': 'log_processor',
    'build_visualizer': 'visualizer',
    'register_default_hooks': 'default_hooks',
    'register_custom_hooks': 'custom_hooks',
}
# Their errors name a file or the model, not an argument.
_OTHERS = ('build_dataloader', 'build_model', 'init_weights', 'load_or_resume')
_LAYER_DECAY = (
    'For the layer decay of other backbones set optim_wrapper.constructor=addp_mm.LayerDecayOptimWrapperConstructor'
)
_STAGES = ('before_run', 'before_train')
# What mmengine's registries raise.
_UNREGISTERED = re.compile(r'(?P<kind>[\w.]+) is not in the ((?P<scope>\w+)::)?(?P<registry>[\w ]+) registry')
# What a constructor raises about its arguments. Other errors keep their traceback.
_ARGUMENT_ERRORS = (ValueError, TypeError, KeyError, AssertionError, NotImplementedError)


@contextmanager
def name_sections() -> Iterator[None]:
    """Turn an error about an argument into one line that names the section of the config.

    It covers the optimizers, schedules, hooks, loops, metrics, the log and the visualizer, which
    mmengine builds in the Runner's constructor or when training starts.

    Raises:
        ConfigError: Replaces such an error.
    """
    try:
        yield
    except UserError:
        raise
    except _ARGUMENT_ERRORS as error:
        _refuse_unregistered(error)
        section = _section(error)
        if section is None:
            raise
        where = traceback.extract_tb(error.__traceback__)[-1]
        text = str(error.args[0]) if isinstance(error, KeyError) and error.args else str(error)
        text = text or type(error).__name__
        if section == 'optim_wrapper' and isinstance(error, NotImplementedError):
            text += f'. {_LAYER_DECAY}'
        raise ConfigError(
            f'config: {section} cannot be built: {text} ({where.filename}, line {where.lineno})'
        ) from error


def _refuse_unregistered(error: Exception) -> None:
    """Turn the error of a registry, in any package, into one line that names the key of the config.

    Raises:
        ConfigError: The error is about a type that is not registered.
    """
    found = _UNREGISTERED.search(str(error))
    if found is None:
        return
    kind, scope, registry = found['kind'], found['scope'] or 'mmengine', found['registry']
    roots = [name for name, root in vars(registries).items() if getattr(root, 'name', None) == registry]
    near = similar_types(kind, tuple(roots[:1]), scope) or reason_not_found(kind)
    keys = [key for key, node in nodes_below(_config(error)) if isinstance(node, dict) and node.get('type') == kind]
    where = f'{first_few(keys)}: ' if keys else ''
    raise ConfigError(f'config: {where}type={kind!r} is not registered in {scope}::{registry}{near}') from error


def _config(error: Exception) -> Config | dict:
    """The config of the runner that was building; {} if there was none."""
    for frame, _ in traceback.walk_tb(error.__traceback__):
        owner = frame.f_locals.get('self', frame.f_locals.get('runner'))
        if isinstance(owner, Runner | FlexibleRunner):
            return owner.cfg
        if isinstance(frame.f_locals.get('cfg'), Config):
            return frame.f_locals['cfg']
    return {}


def _section(error: Exception) -> str | None:
    """The section that was being built when an error was raised."""
    section = None
    for frame, _ in traceback.walk_tb(error.__traceback__):
        name = frame.f_code.co_name
        if name in _OTHERS:
            section = None
        elif section is None and name in _BUILDERS:
            section = _BUILDERS[name]
        elif name == 'build_evaluator' and section is not None:
            section = section.replace('_cfg', '_evaluator')
        elif name == 'register_hook' and section is not None and isinstance(frame.f_locals.get('hook'), dict):
            section += f' ({type_name(frame.f_locals["hook"].get("type"))})'
        elif name in _STAGES and isinstance(frame.f_locals.get('self'), Hook):
            section = f'the hook {type(frame.f_locals["self"]).__name__}'
    return section
