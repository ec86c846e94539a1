# Copyright (c) addp_mm contributors. Apache-2.0.
"""A tiny dataset, a tiny config, and tools/train.py and tools/test.py run as processes."""

import json
import os
import socket
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

ROOT = Path(__file__).parents[2]
CONFIG = """
_base_ = {base!r}
default_scope = 'mmpretrain'
model = dict(
    type='ImageClassifier',
    backbone=dict(
        type='addp_mm.ADDPViT', arch=dict(embed_dims=16, num_layers=2, num_heads=2), img_size=32, patch_size=8,
        out_type='avg_featmap'),
    head=dict(type='LinearClsHead', num_classes=2, in_channels=16),
    data_preprocessor=dict(num_classes=2, mean=[127] * 3, std=[64] * 3, to_rgb=True))
train_pipeline = [dict(type='LoadImageFromFile'), dict(type='PackInputs')]
val_pipeline = [dict(type='LoadImageFromFile'), dict(type='Resize', scale=32), dict(type='PackInputs')]
train_dataloader = dict(
    batch_size=4, num_workers=0, sampler=dict(type='DefaultSampler', shuffle=True),
    dataset=dict(type='CustomDataset', data_root={data!r}, data_prefix='train', pipeline=train_pipeline))
val_dataloader = dict(
    batch_size=4, num_workers=0, sampler=dict(type='DefaultSampler', shuffle=False),
    dataset=dict(type='CustomDataset', data_root={data!r}, data_prefix='val', pipeline=val_pipeline))
test_dataloader = val_dataloader
val_evaluator = dict(type='Accuracy', topk=(1, ))
test_evaluator = val_evaluator
train_cfg = dict(by_epoch=True, max_epochs=2, val_interval=1)
val_cfg = dict()
test_cfg = dict()
optim_wrapper = dict(optimizer=dict(type='AdamW', lr=1e-3))
param_scheduler = dict(type='CosineAnnealingLR', T_max=2, by_epoch=True)
auto_scale_lr = dict(base_batch_size=16)
default_hooks = dict(logger=dict(interval=1))
randomness = dict(seed=0)
"""


@dataclass
class Finished:
    """Exit status and output of a tool."""

    status: int
    output: str


class ToolServer:
    """Starts a tool of this repository in a fresh process."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.log = folder / 'tool.log'
        environment = {**os.environ, 'OMP_NUM_THREADS': '1', 'CUDA_VISIBLE_DEVICES': ''}
        self.process = subprocess.Popen(
            [sys.executable, '-m', 'helpers.tool_server'],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            env=environment,
        )

    def __call__(
        self, tool: str | Path, *arguments, ranks: int = 1, cwd: Path | None = None, **environ: str
    ) -> Finished:
        """Run a tool, or any script at an absolute path.

        Args:
            tool: Name below ``tools/``.
            arguments: Of the command line.
            ranks: Number of processes, which get the environment that torchrun would give them.
                Defaults to 1.
            cwd: Working directory. Defaults to None: the folder of the dataset.
            environ: More environment variables.
        """
        argv = [str(ROOT / 'tools' / tool), *map(str, arguments)]
        job = dict(argv=argv, cwd=str(cwd or self.folder), environ=[environ], log=str(self.log))
        if ranks > 1:
            job['environ'] = [{**environ, **one} for one in _environments(ranks)]
        self.process.stdin.write(json.dumps(job) + '\n')
        self.process.stdin.flush()
        for line in self.process.stdout:
            if line.startswith('STATUS '):
                return Finished(int(line.split()[1]), self.log.read_text(errors='replace'))
        raise RuntimeError('the tool server ended; run python -m helpers.tool_server in tests/ to see why')

    def close(self) -> None:
        self.process.stdin.close()
        self.process.wait(timeout=30)


def _environments(ranks: int) -> list[dict[str, str]]:
    with socket.socket() as free:
        free.bind(('127.0.0.1', 0))
        group = dict(MASTER_ADDR='127.0.0.1', MASTER_PORT=str(free.getsockname()[1]), WORLD_SIZE=str(ranks))
    return [dict(group, RANK=str(rank), LOCAL_RANK=str(rank)) for rank in range(ranks)]


@pytest.fixture(scope='session')
def workplace(tmp_path_factory) -> Path:
    """A folder with 8 + 8 training and 4 + 4 validation images of two classes, and their config."""
    folder = tmp_path_factory.mktemp('tools')
    generator = np.random.default_rng(0)
    for split, count in (('train', 8), ('val', 4)):
        for label, name in enumerate(('dark', 'light')):
            (folder / 'data' / split / name).mkdir(parents=True)
            for index in range(count):
                pixels = generator.integers(0, 128, (32, 32, 3)) + 127 * label
                Image.fromarray(pixels.astype(np.uint8)).save(folder / 'data' / split / name / f'{index}.png')
    base = str(ROOT / 'configs/_base_/default_runtime.py')
    (folder / 'tiny.py').write_text(CONFIG.format(base=base, data=str(folder / 'data')))
    return folder


@pytest.fixture(scope='session')
def run_tool(workplace):
    """Run a tool in the folder of the dataset: ``run_tool('train.py', 'tiny.py', …)``."""
    server = ToolServer(workplace)
    yield server
    server.close()


@pytest.fixture(scope='session')
def trained(workplace, run_tool) -> Path:
    """The work dir of a complete training of two epochs. No test changes it."""
    finished = run_tool('train.py', 'tiny.py', '--work-dir', 'trained')
    assert finished.status == 0, finished.output
    return workplace / 'trained'
