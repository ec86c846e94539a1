# Copyright (c) addp_mm contributors. Apache-2.0.
"""Files that hold data only: pickles, configs in JSON and YAML, and the text of a config."""

from __future__ import annotations

import json
import pickle
import pickletools
from collections import Counter, OrderedDict, defaultdict
from collections.abc import Iterable
from contextlib import suppress
from pathlib import PurePosixPath

import numpy as np
import torch
import yaml
from mmengine.config import Config, ConfigDict
from mmengine.structures import InstanceData

from addp_mm.config.data_config import read_data_config
from addp_mm.config.literal_text import literal_config
from addp_mm.safe_files import pickles
from fuzz_targets.target import Target, scratch

_CONFIG = dict(
    default_scope='mmengine',
    custom_imports=dict(imports=['addp_mm'], allow_failed_imports=False),
    model=dict(type='torch.nn.Linear', in_features=2, out_features=[1, 2.5, None, True, -1e-3]),
    hooks=[dict(type='IterTimerHook', _scope_='mmengine', sizes=dict(_tuple_=[1, 2]))],
)


def read_pickle(data: bytes) -> None:
    """Read the bytes as a pickle, unless they ask for memory, which has no limit."""
    if _asks_for_memory(data):
        return
    found = pickles.loads(data)
    with suppress(Exception):  # of a structure without its attributes
        repr(found)  # a damaged array fails when it is used


def _asks_for_memory(data: bytes) -> bool:
    try:
        return any(
            ('PUT' in code.name or code.name == 'BYTEARRAY8') and isinstance(value, int) and value > len(data)
            for code, value, _ in pickletools.genops(data)
        )
    except Exception:  # the pickle is damaged after what was seen
        return b'r' in data or b'p' in data or b'\x96' in data


def read_config(data: bytes) -> None:
    """Read the bytes after the first as JSON or YAML."""
    suffix = 'yaml' if data[:1] == b'y' else 'json'
    read_data_config(str(scratch(f'config.{suffix}', data[1:]))).to_dict()


def read_literal(data: bytes) -> None:
    """Read the bytes as the text of a config in a checkpoint."""
    literal_config(data.decode('utf-8', 'replace'), 'the text')


def _pickles() -> Iterable[bytes]:
    contents = (
        dict(text='ä', raw=b'\0\xff', numbers=[1, 2.5, True, None, 3 + 1j], names={'a'}, keys=(1, (2,))),
        [np.arange(4, dtype='>i2').reshape(2, 2), np.float32(1), np.array(['a', None], object), np.dtype('f8')],
        [OrderedDict(a=1), defaultdict(list, a=[1]), Counter('aab'), slice(3), PurePosixPath('/a/b')],
        [torch.ones(2, 1), torch.nn.Parameter(torch.ones(1)), torch.Size((2,)), torch.bfloat16],
        [InstanceData(metainfo=dict(a=1), boxes=np.zeros((1, 4))), ConfigDict(a=ConfigDict(b=2))],
    )
    for content in contents:
        yield from (pickle.dumps(content, protocol) for protocol in (0, 2, 5))


def _configs() -> Iterable[bytes]:
    yield b'j' + json.dumps(_CONFIG).encode()
    yield b'y' + yaml.dump(_CONFIG).encode()
    yield b'j' + json.dumps(dict(a=dict(_items_=[[1, 'x'], ['y', 2]]), runner_type='Runner')).encode()


def _texts() -> Iterable[bytes]:
    yield Config(_CONFIG).pretty_text.encode()
    yield b"a = dict({'x y': (1, -2.5)}, b=[inf, nan, None])\nc = {1: {2, 3}}"


_KEYS = ('type', 'constructor', 'custom_imports', 'imports', 'default_scope', '_scope_', '_base_', '_tuple_', '_items_')
PICKLE = Target(
    read_pickle,
    _pickles,
    words=(
        b'cnumpy\ndtype\n',
        b'cnumpy\nndarray\n',
        b'cnumpy._core.multiarray\n_reconstruct\n',
        b'cmmengine.config.config\nConfigDict\n',
        b'cpathlib\nPosixPath\n',
        b'ctorch._utils\n_rebuild_tensor_v2\n',
        b'cbuiltins\nset\n',
        *(b'R', b'b', b'.', b'\x81', b'\x85', b'\x86', b'}', b']', b')', b'N', b'K\x01'),
    ),
)
DATA_CONFIG = Target(
    read_config,
    _configs,
    words=(
        *(f'"{key}": '.encode() for key in _KEYS),
        b'null',
        b'{',
        b'}',
        b'[',
        b']',
        b'&a ',
        b'*a',
        b'!!python/tuple',
    ),
)
LITERAL_CONFIG = Target(
    read_literal,
    _texts,
    words=(b'dict(', b'=', b'{', b'}', b'[', b']', b'(', b')', b',', b':', b'-', b'inf', b'None', b"''", b'\n', b'**'),
)
