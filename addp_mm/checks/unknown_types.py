# Copyright (c) addp_mm contributors. Apache-2.0.
"""Find a misspelt ``type`` in a config, before anything is built."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterator

from mmengine import registry as roots
from mmengine.config import Config

from addp_mm.checks.config_classes import resolve
from addp_mm.config.nodes import node_at
from addp_mm.config.registered_types import reason_not_found
from addp_mm.config.type_names import type_name
from addp_mm.errors import ConfigError

_PARTS_OF_MODELS = (
    'backbone|neck|head|decode_head|auxiliary_head|rpn_head|roi_head|bbox_head|mask_head|bbox_roi_extractor|'
    r'mask_roi_extractor|data_preprocessor|predictor|discriminator|loss(_(cls|bbox|mask|iou|centerness|decode))?'
)
# Parts of a config from which mmengine, or the packages, build an object by a registry. At other
# places a class may read a dict with a `type` itself: only a name similar to a known one is
# refused.
_BUILT = re.compile(
    '|'.join(
        (
            rf'(model|tta_model)((\.\w+)*\.({_PARTS_OF_MODELS})(\.\d+)?)?',
            r'(train|val|test)_cfg|log_processor|visualizer|strategy|model_wrapper_cfg',
            r'optim_wrapper(\.(\w+\.)?optimizer)?',
            r'default_hooks\.\w+|custom_hooks\.\d+',
            r'param_scheduler(\.\w+)*',
            r'(visualizer\.)?vis_backends\.\d+',
            r'(val|test)_evaluator(\.(metrics\.)?\d+)?',
            r'\w+_dataloader\.(batch_)?sampler',
            r'\w+_dataloader\.dataset(\.datasets?(\.\d+)?)*(\.pipeline\.\d+(\.transforms(\.\d+)+)*)?',
            r'tta_pipeline(\.\d+(\.transforms(\.\d+)+)*)?',
        )
    )
)
_LAYERS = ('norm_cfg', 'act_cfg', 'conv_cfg', 'upsample_cfg', 'dropout_layer')
_CUTOFF = 0.85
_ADVICE = '. Correct the name, write its package before it, add its module to custom_imports, or install what it needs'


def refuse_unknown_type(where: str, kind: object, registries: tuple[str, ...], scope: str) -> None:
    """Refuse a type that is not registered, if it must be or if it is similar to one that is.

    Args:
        where: Dotted name of the part of the config.
        kind: Its ``type``, which was not found.
        registries: Names of mmengine's root registries that could build it.
        scope: Package in which names without a package are looked up.

    Raises:
        ConfigError: It is refused.
    """
    near = similar_types(str(kind), registries, scope)
    if near or _BUILT.fullmatch(where) and isinstance(kind, str):
        advice = near or reason_not_found(str(kind)) or _ADVICE
        raise ConfigError(f'config: {where}.type={kind!r} is not registered{advice}')


def similar_types(name: str, registries: tuple[str, ...], scope: str) -> str:
    """``'; did you mean a?'`` for a misspelt type, or one without its scope; else ''.

    Args:
        name: The type.
        registries: Names of mmengine's root registries that could build it.
        scope: Package in which names without a package are looked up.
    """
    plain = type_name(name)
    if not plain:
        return ''
    names: dict[str, str] = {}
    for root in (getattr(roots, registry) for registry in registries):
        for registry in (root, *root.children.values()):
            registry.get(plain)  # makes the registry import the modules of its classes
            for known in registry.module_dict:
                names.setdefault(known, known if registry.scope in (scope, root.scope) else f'{registry.scope}.{known}')
    near = [plain] if plain in names else difflib.get_close_matches(plain, names, n=3, cutoff=_CUTOFF)
    return f'; did you mean {", ".join(names[one] for one in near)}?' if near else ''


def check_other_types(cfg: Config, scope: str) -> None:
    """Check the types that no section contains: initialisers, layers, constructors, the runner.

    Args:
        cfg: The whole config.
        scope: Its default scope.

    Raises:
        ConfigError: One of them is not registered.
    """
    for key, registry in (
        ('runner_type', 'RUNNERS'),
        ('optim_wrapper.constructor', 'OPTIM_WRAPPER_CONSTRUCTORS'),
        ('model_wrapper_cfg.type', 'MODEL_WRAPPERS'),
        *((f'{split}_dataloader.collate_fn.type', 'FUNCTIONS') for split in ('train', 'val', 'test')),
    ):
        kind = node_at(cfg, key)
        if isinstance(kind, str) and resolve(kind, (registry,), scope)[0] is None:
            near = similar_types(kind, (registry,), scope) or reason_not_found(kind)
            raise ConfigError(f'config: {key}={kind!r} is not registered{near}')
    for where, name, node in _inner_nodes(cfg.get('model'), 'model'):
        kind, found = node.get('type'), ('WEIGHT_INITIALIZERS',) if name == 'init_cfg' else ('MODELS', 'TASK_UTILS')
        if not isinstance(kind, str) or resolve(kind, found, node.get('_scope_', scope))[0] is not None:
            continue
        near = similar_types(kind, found, scope)
        if near or name == 'init_cfg':
            advice = near or reason_not_found(kind)
            raise ConfigError(f'config: {where}.type={kind!r} is not registered{advice}')


def _inner_nodes(node: object, path: str, name: str = '') -> Iterator[tuple[str, str, dict]]:
    """Yield the initialisers and layers below a node: dotted name, key and dict."""
    if isinstance(node, dict):
        if name:
            yield path, name, node
        for key, value in node.items():
            inner = key if key in ('init_cfg', *_LAYERS) else name if key == 'override' else ''
            yield from _inner_nodes(value, f'{path}.{key}', inner)
    elif isinstance(node, (list, tuple)):
        for index, value in enumerate(node):
            yield from _inner_nodes(value, f'{path}.{index}', name)
