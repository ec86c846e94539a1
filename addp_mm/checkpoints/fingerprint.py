# Copyright (c) addp_mm contributors. Apache-2.0.
"""The fingerprint of a module's weights."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping

import torch
from torch import Tensor, nn


def module_fingerprint(module: nn.Module, *settings: object) -> str:
    """SHA-256 of a module: its settings, and the names, types, shapes and values of its weights.

    Weights that were rounded to half precision have another fingerprint.

    Args:
        module: The module, on any device. The fingerprint includes its buffers.
        *settings: Values that change the module's results. They are written as JSON; a value that
            JSON does not support is written by ``str``.

    Returns:
        64 hexadecimal digits.
    """
    return weights_fingerprint(module.state_dict(), *settings)


def weights_fingerprint(state_dict: Mapping[str, Tensor], *settings: object) -> str:
    """The fingerprint of a module with these weights; see :func:`module_fingerprint`."""
    digest = hashlib.sha256(json.dumps(settings, sort_keys=True, default=str).encode())
    for name, value in sorted(state_dict.items()):
        digest.update(f'{name} {value.dtype} {tuple(value.shape)}\n'.encode())
        digest.update(value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()
