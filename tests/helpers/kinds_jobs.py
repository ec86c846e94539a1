# Copyright (c) addp_mm contributors. Apache-2.0.
"""Every kind of nano config under DistributedDataParallel with its defaults.

A parameter without a gradient is an error of the second step.
"""

from __future__ import annotations

from pathlib import Path

import mmdet.models  # noqa: F401  # once, before the forks
import mmpretrain.models  # noqa: F401
import mmseg.models  # noqa: F401
import torch
from mmengine.config import Config
from mmengine.model import MMDistributedDataParallel
from mmengine.optim import OptimWrapper
from mmengine.registry import MODELS, DefaultScope
from mmengine.structures import PixelData
from mmpretrain.structures import DataSample
from mmseg.structures import SegDataSample

from addp_mm.randomness import Purpose, seed_process
from helpers.detect_jobs import TwoBoxes
from helpers.jobs import in_two

CONFIGS = Path(__file__).parents[2] / 'configs'
KINDS = dict(
    tokenizer='pretrain/vq-tokenizer_nano-p8_[0-9]*.py',
    predictor='pretrain/token-predictor_nano-p8_[0-9]*.py',
    addp='pretrain/addp_vit-nano-p8_[0-9]*.py',
    classify='cls/*nano-p8_from-scratch_*.py',
    detect='det/*nano-p8_from-scratch_*.py',
    segment='seg/*nano-p8_from-scratch_*.py',
)


def batch(kind: str, rank: int) -> dict:
    images = torch.randint(256, (2, 3, 64, 64), dtype=torch.uint8, generator=torch.Generator().manual_seed(rank))
    if kind == 'detect':
        scenes = [TwoBoxes()[2 * rank + index] for index in range(2)]
        return dict(
            inputs=[scene['inputs'] for scene in scenes], data_samples=[scene['data_samples'] for scene in scenes]
        )
    if kind == 'segment':
        info = dict(img_shape=(64, 64), ori_shape=(64, 64))
        labels = PixelData(data=torch.randint(11, (1, 64, 64)))
        return dict(inputs=list(images), data_samples=[SegDataSample(gt_sem_seg=labels, metainfo=info)] * 2)
    return dict(inputs=images, data_samples=[DataSample().set_gt_label(3)] * 2)


def steps(_: Path, world_size: int, kind: str) -> dict:
    torch.distributed.init_process_group('gloo')
    rank = torch.distributed.get_rank()
    (path,) = CONFIGS.glob(KINDS[kind])
    cfg = Config.fromfile(path)
    if 'data_preprocessor' in cfg:
        cfg.model.data_preprocessor = dict(type='ClsDataPreprocessor', **cfg.data_preprocessor)
    with DefaultScope.overwrite_default_scope(cfg.default_scope):
        model = MODELS.build(cfg.model)
    model.init_weights()
    wrapped = MMDistributedDataParallel(module=model.train())
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = OptimWrapper(torch.optim.SGD(trained, lr=1e-3))
    before = [parameter.detach().clone() for parameter in trained]
    for step in range(2):
        seed_process(0, Purpose.TRAINING_STEP, rank, step)
        wrapped.train_step(batch(kind, rank), optimizer)
    moved = sum(not torch.equal(old, new) for old, new in zip(before, trained, strict=True))
    return dict(
        weights={name: value.detach().clone() for name, value in model.named_parameters()},
        unused=wrapped.find_unused_parameters,
        moved=moved / len(trained),
    )


def run(folder: Path) -> None:
    for kind in KINDS:
        in_two(folder, kind, steps, kind=kind)
