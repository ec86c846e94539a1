# Copyright (c) addp_mm contributors. Apache-2.0.
"""Fingerprints by which stored tokens know their tokenizer and their images again."""

from __future__ import annotations

import hashlib
import inspect
import json
from collections.abc import Iterable, Mapping

from torch import nn

from addp_mm.checkpoints.fingerprint import module_fingerprint
from addp_mm.config.type_names import type_name
from addp_mm.datasets.listed.image_folder import DatasetError
from addp_mm.registry import MODELS


def build_loaded(config: Mapping) -> nn.Module:
    """A tokenizer with the weights that its ``init_cfg`` names, in eval mode and without gradients.

    Raises:
        DatasetError: No ``init_cfg`` names weights.
        CheckpointError: They do not fit.
        ConfigError: The type is mmengine's own ``Pretrained``.
    """
    if not type_name((config.get('init_cfg') or {}).get('type')).startswith('Pretrained'):
        raise DatasetError(
            "the tokenizer has no trained weights: give it an init_cfg=dict(type='addp_mm.Pretrained', checkpoint=…)"
        )
    module = MODELS.build(dict(config))
    module.init_weights()
    return module.requires_grad_(False).eval()


def tokenizer_fingerprint(module: nn.Module, config: Mapping) -> str:
    """SHA-256 of a tokenizer: its class, the arguments that differ from the defaults, names, types, values of weights.

    The same weights loaded from another file, or the same arguments written in another way, have
    the same fingerprint; weights that were rounded to half precision on the way have another one,
    since ids may differ.

    Args:
        module: The tokenizer with its weights.
        config: Its config; ``type`` and ``init_cfg`` do not count.
    """
    return module_fingerprint(module, type(module).__name__, _own_arguments(module, config))


def _own_arguments(module: nn.Module, config: Mapping) -> dict:
    """Arguments by name as JSON knows them. Defaults are left out: an option that is added later changes nothing."""
    parameters = inspect.signature(type(module)).parameters
    arguments = {}
    for name in sorted(set(config) - {'type', 'init_cfg', '_scope_'}):
        value, default = (
            (json.loads(json.dumps(item, default=str)) for item in (config[name], parameters[name].default))
            if name in parameters
            else (config[name], None)
        )
        if value != default:
            arguments[name] = value
    return arguments


def names_fingerprint(names: Iterable[str]) -> str:
    """SHA-256 of a list of names, in its order."""
    digest = hashlib.sha256()
    for name in names:
        digest.update(name.encode('utf-8', 'surrogateescape') + b'\0')
    return digest.hexdigest()
