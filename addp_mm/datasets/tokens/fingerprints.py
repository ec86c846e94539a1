# Copyright (c) addp_mm contributors. Apache-2.0.
"""The fingerprint of a tokenizer, which is stored with its token ids."""

from __future__ import annotations

import inspect
import json
from collections.abc import Mapping

from torch import nn

from addp_mm.checkpoints.fingerprint import module_fingerprint
from addp_mm.checkpoints.init_weights import init_weights
from addp_mm.config.type_names import type_name
from addp_mm.datasets.errors import DatasetError
from addp_mm.registry import MODELS


def build_loaded(config: Mapping) -> nn.Module:
    """Build a tokenizer with the weights of its ``init_cfg``, in eval mode and without gradients.

    Raises:
        DatasetError: Its ``init_cfg`` loads no weights.
        CheckpointError: The weights do not fit.
        ConfigError: The type is mmengine's own ``Pretrained``.
    """
    if not type_name((config.get('init_cfg') or {}).get('type')).startswith('Pretrained'):
        raise DatasetError(
            "the tokenizer has no trained weights: give it an init_cfg=dict(type='addp_mm.Pretrained', checkpoint=…)"
        )
    module = MODELS.build(dict(config))
    init_weights(module)
    return module.requires_grad_(False).eval()


def tokenizer_fingerprint(module: nn.Module, config: Mapping) -> str:
    """SHA-256 of a tokenizer: its class, its arguments that are not defaults, and its weights.

    The same weights from another file, or the same arguments written in another way, have the same
    fingerprint. Weights that were rounded to half precision have another one, because ids may
    differ.

    Args:
        module: The tokenizer with its weights.
        config: Its config; ``type`` and ``init_cfg`` are ignored.
    """
    return module_fingerprint(module, type(module).__name__, _own_arguments(module, config))


def _own_arguments(module: nn.Module, config: Mapping) -> dict:
    """Arguments by name, as JSON, without defaults, so that a new option does not change them."""

    def as_json(value: object) -> object:
        return json.loads(json.dumps(value, default=str))

    defaults = {name: parameter.default for name, parameter in inspect.signature(type(module)).parameters.items()}
    return {
        name: as_json(value)
        for name, value in config.items()
        if name not in ('type', 'init_cfg', '_scope_') and as_json(value) != as_json(defaults.get(name))
    }
