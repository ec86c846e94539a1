# Copyright (c) addp_mm contributors. Apache-2.0.
"""Options of the command line."""

from __future__ import annotations

from collections.abc import Iterable

from mmengine.config import Config

from addp_mm.config.option_values import read_value
from addp_mm.config.options import merge_options
from fuzz_targets.target import Target

_CONFIG = dict(
    model=dict(type='A', depth=3, lr=0.1, frozen=True, name='x', sizes=[1, 2], parts=[dict(type='B', p=1)], off=None),
    train_dataloader=dict(batch_size=2, sampler=dict(type='S')),
    env_cfg=dict(mp_cfg=dict(mp_start_method='fork')),
    work_dir='w',
)


def read_options(data: bytes) -> None:
    """Merge lines of ``KEY=VALUE`` into a config."""
    options = data.decode('utf-8', 'surrogateescape').splitlines()
    cfg = Config(_CONFIG)
    merge_options(cfg, options)
    repr(cfg)
    for option in options:
        read_value(option, ['a'])


def _options() -> Iterable[bytes]:
    yield b'model.depth=4\nmodel.sizes=1,2\nmodel.parts.0.p=2'
    yield b'model.name="a b"\nmodel.off={"a": [1, (2, None)]}'
    yield b"model.parts=[dict(type=B, p=1e-3), {'x': True}]"
    yield b'model._delete_=True\nmodel.type=B'
    yield b'train_dataloader={batch_size: 3, _delete_: True}'
    yield b'env_cfg.mp_cfg.mp_start_method=spawn\nwork_dir=~/a,b'


OPTIONS = Target(
    read_options,
    _options,
    words=(
        *(
            b'model',
            b'.depth',
            b'.sizes',
            b'.parts.0',
            b'.off',
            b'=',
            b'_delete_',
            b'True',
            b'None',
            b'dict(',
            b'{',
            b'}',
        ),
        *(b'[', b']', b'(', b')', b"'", b'"', b',', b':', b'1e5', b'inf', b'nan', b'-1', b'type', b'~/', b'work_dir'),
    ),
)
