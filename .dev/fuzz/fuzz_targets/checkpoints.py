# Copyright (c) addp_mm contributors. Apache-2.0.
"""Checkpoint files: pickles in each of torch's formats, and safetensors."""

from __future__ import annotations

import argparse
import io
import json
import pickle
from collections import OrderedDict
from collections.abc import Iterable

import numpy as np
import torch
from mmengine.logging import HistoryBuffer

from addp_mm.checkpoints.reading import load_checkpoint_file
from addp_mm.checkpoints.state_dict import find_state_dict
from addp_mm.layouts import held_by
from fuzz_targets.target import Target, scratch

_SPACE = 16  # bytes of tensors behind a safetensors header


def _read(path) -> None:
    checkpoint = load_checkpoint_file(path)
    repr(checkpoint)  # a damaged array fails when it is used
    weights = find_state_dict(checkpoint, str(path))
    held_by(weights, {})


def read_checkpoint(data: bytes) -> None:
    """Read the bytes as a ``.pth`` file."""
    _read(scratch('checkpoint.pth', data))


def read_safetensors(data: bytes) -> None:
    """Read the bytes as the header of a ``.safetensors`` file."""
    _read(scratch('checkpoint.safetensors', len(data).to_bytes(8, 'little') + data + bytes(_SPACE)))


def _saved(content: object, **options) -> bytes:
    file = io.BytesIO()
    torch.save(content, file, **options)
    return file.getvalue()


def _checkpoints() -> Iterable[bytes]:
    history = HistoryBuffer([0.5], [1])
    contents = (
        dict(state_dict=OrderedDict(a=torch.ones(2))),
        dict(model=dict(a=torch.ones(1)), args=argparse.Namespace(lr=0.1)),
        dict(meta=dict(epoch=np.float64(1), palette=np.zeros((1, 3), np.uint8))),
        dict(message_hub=dict(log_scalars=dict(loss=history))),
        dict(a=np.array(['x', None], object), b=np.dtype('>f4'), c=slice(1)),
    )
    for content in contents:
        yield _saved(content, _use_new_zipfile_serialization=False)
        if 'model' not in content:
            yield pickle.dumps({key: value for key, value in content.items() if key != 'state_dict'}, protocol=2)
    yield _saved(dict(a=torch.ones(1)))


def _headers() -> Iterable[bytes]:
    tensor = dict(dtype='F32', shape=[2, 2], data_offsets=[0, 16])
    yield json.dumps(dict(w=tensor, __metadata__=dict(dataset_meta='{"classes": ["a"]}'))).encode()
    sizes = dict(F64=8, F16=2, BF16=2, I64=8, U8=1, BOOL=1, F8_E4M3=1, F8_E8M0=1, U16=2, C64=8, F4=0.5)
    for dtype, size in sizes.items():
        yield json.dumps(dict(w=dict(dtype=dtype, shape=[int(_SPACE / size)], data_offsets=[0, _SPACE]))).encode()


CHECKPOINT = Target(
    read_checkpoint,
    _checkpoints,
    words=(
        b'cnumpy\ndtype\n',
        b'cnumpy\nndarray\n',
        b'cnumpy._core.multiarray\n_reconstruct\n',
        b'cnumpy._core.multiarray\nscalar\n',
        b'cmmengine.logging.history_buffer\nHistoryBuffer\n',
        b'cbuiltins\ngetattr\n',
        b'cbuiltins\nslice\n',
        b'cargparse\nNamespace\n',
        b'ctorch._utils\n_rebuild_tensor_v2\n',
        b'ccollections\nOrderedDict\n',
        b'c_codecs\nencode\n',
        b'R',
        b'b',
        b'.',
    ),
)
SAFETENSORS = Target(
    read_safetensors,
    _headers,
    words=(b'"dtype"', b'"shape"', b'"data_offsets"', b'"__metadata__"', b'"dataset_meta"', b'"F32"', b'[0,16]'),
)
