# Copyright (c) addp_mm contributors. Apache-2.0.
"""Find the class or function that a part of a config builds."""

from typing import Any

from mmengine import registry as roots
from mmengine.config import Config

from addp_mm.checks.type_lookup import find_type
from addp_mm.config.nodes import node_at

# Registries that build a section of the config. A model also contains objects that are not modules,
# such as assigners and coders; an evaluator may contain networks.
SECTIONS = {
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
#: Sections that build a data loader.
DATA_LOADERS = ('train_dataloader', 'val_dataloader', 'test_dataloader')


def resolve(kind: str | type, registries: tuple[str, ...], scope: str) -> tuple[Any, str]:
    """Find the class or function of a ``type`` in several registries.

    Args:
        kind: The ``type`` of a config: a name, or the class itself.
        registries: Names of mmengine's root registries, in the order in which they are tried.
        scope: Package in which names without a package are looked up.

    Returns:
        The class or function, None if the name is not registered; and the name of its registry, ''
        if it is not registered.
    """
    name = kind if isinstance(kind, str) else getattr(kind, '__name__', '')
    for registry in registries:
        found = find_type(name, getattr(roots, registry), scope)
        if found is not None and (isinstance(kind, str) or found is kind):
            return found, registry
    return (None if isinstance(kind, str) else kind), ''


def class_at(cfg: Config, key: str) -> Any:
    """The class or function to which a key of a config is an argument; None if it is not known.

    Args:
        cfg: The config.
        key: A key such as ``'model.backbone.patch_size'``; the config need not have its last part.
    """
    owner = key.rpartition('.')[0]
    node = node_at(cfg, owner)
    if not isinstance(node, dict) or 'type' not in node:
        return None
    section, *inner = owner.split('.')
    registries = SECTIONS.get(section, ())
    if section in DATA_LOADERS:
        registries = ('DATASETS', 'TRANSFORMS') if inner[:1] == ['dataset'] else ('DATA_SAMPLERS',)
    scope = node.get('_scope_', cfg.get('default_scope') or 'mmengine')
    return resolve(node['type'], registries, scope)[0]
