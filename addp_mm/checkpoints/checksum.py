# Copyright (c) addp_mm contributors. Apache-2.0.
"""The checksum of a safetensors file; the format itself has none."""

from __future__ import annotations

import json
import zlib
from collections.abc import Mapping

import torch
from torch import Tensor

CHECKSUM = 'crc32'  # its key in the metadata of the file


def checksum(tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> str:
    """CRC-32 of the names, types, shapes and values of tensors, and of text beside them.

    Args:
        tensors: Tensors on the CPU by name.
        metadata: Text by name, without the checksum.

    Returns:
        8 hexadecimal digits.
    """
    value = zlib.crc32(json.dumps(metadata, sort_keys=True).encode())
    for name, tensor in sorted(tensors.items()):
        value = zlib.crc32(f'{name} {tensor.dtype} {tuple(tensor.shape)}'.encode(), value)
        values = tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8)
        value = zlib.crc32(values.numpy().data, value)
    return f'{value:08x}'
