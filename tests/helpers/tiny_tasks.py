# Copyright (c) addp_mm contributors. Apache-2.0.
"""Trainings of seconds: the recipes' classifiers, detector and segmentor with tiny backbones."""

import importlib
import itertools

import numpy as np
import torch
from mmengine.config import Config
from mmengine.registry import DefaultScope
from mmengine.runner import Runner
from torch.utils.data import Dataset

from addp_mm.datasets.samplers.seeded_samples import random_state_of
from helpers.recipes import load_recipe

TINY = dict(embed_dims=16, num_layers=4, num_heads=2)
TINY_VOLO = dict(layers=(1, 1, 1, 1), embed_dims=(8, 16), num_heads=(1, 2), stem_channels=8, patch_size=4)
_RUNS = itertools.count()


class FlippedScenes(Dataset):
    """Noise images of 64 px, flipped at random, with the targets of the task."""

    def __init__(self, task):
        self.task = task

    def __len__(self):
        return 8

    def __getitem__(self, index):
        with random_state_of(index):
            flip = np.random.rand() < 0.5  # noqa: NPY002
        if self.task == 'det':
            from helpers.detect_jobs import TwoBoxes

            scene = TwoBoxes()[int(index)]
            return {**scene, 'inputs': scene['inputs'].flip(0) if flip else scene['inputs']}
        pixels = np.random.default_rng(int(index)).integers(0, 256, (3, 64, 64)).astype(np.uint8)
        image = torch.from_numpy(pixels).flip(-1) if flip else torch.from_numpy(pixels)
        return dict(inputs=image, data_samples=self.sample(int(index), image))

    def sample(self, index, image):
        if self.task in CLASSIFIERS:
            from mmpretrain.structures import DataSample

            return DataSample().set_gt_label(index % 10)
        from mmengine.structures import PixelData
        from mmseg.structures import SegDataSample

        labels = PixelData(data=(image[:1] % 11).long())
        return SegDataSample(gt_sem_seg=labels, metainfo=dict(img_shape=(64, 64), ori_shape=(64, 64)))


def classifier():
    model = load_recipe('_base_/models/linear-cls_addp-vit-nano-p8.py').model
    model.data_preprocessor = dict(type='ClsDataPreprocessor', num_classes=10, mean=[127] * 3, std=[64] * 3)
    model.backbone.update(drop_rate=0.2, drop_path_rate=0.2)
    model.head.in_channels = 16
    return model


def detector():
    model = load_recipe('_base_/models/mask-rcnn_addp-vit-nano-p8.py').model
    model.neck.in_channels = 16
    return model


def segmentor():
    model = load_recipe('_base_/models/upernet_addp-vit-nano-p8.py').model
    model.neck.embed_dims = 16
    model.backbone.out_indices = (0, 1, 2, 3)
    model.decode_head.update(in_channels=[16] * 4, channels=16)
    model.auxiliary_head.update(in_channels=16, channels=16)
    return model


def volo_classifier():
    model = classifier()
    model.backbone = dict(type='addp_mm.VOLO', img_size=64, out_type='raw', drop_path_rate=0.2, mix_token=True)
    model.head = dict(type='addp_mm.VOLOHead', num_classes=10, in_channels=16)
    return model


TASKS = dict(
    cls=('mmpretrain', classifier),
    volo=('mmpretrain', volo_classifier),
    det=('mmdet', detector),
    seg=('mmseg', segmentor),
)
CLASSIFIERS = ('cls', 'volo')


def train(task, work_dir, max_iters=4, seed=3, optim_wrapper=None, change=None, augments=None, **settings):
    """Train a tiny model of the recipe in this process, with a checkpoint every second iteration.

    ``change`` is called with the Runner before it trains, which is returned. ``augments`` are those
    of a classifier, such as mixup.
    """
    scope, model_of = TASKS[task]
    importlib.import_module(f'{scope}.models')
    model = model_of()
    if augments:
        model.train_cfg = dict(augments=augments)
    model.backbone.update(arch=TINY_VOLO if task == 'volo' else TINY, init_cfg=None)
    name = f'task_{next(_RUNS)}'
    with DefaultScope.overwrite_default_scope(scope):
        runner = Runner(
            model=model,
            work_dir=str(work_dir),
            train_dataloader=dict(
                batch_size=2,
                num_workers=1,
                sampler=dict(type='addp_mm.ResumableInfiniteSampler'),
                dataset=FlippedScenes(task),
                collate_fn=dict(type='default_collate' if task in CLASSIFIERS else 'pseudo_collate'),
            ),
            train_cfg=dict(by_epoch=False, max_iters=max_iters),
            optim_wrapper=optim_wrapper or dict(type='OptimWrapper', optimizer=dict(type='AdamW', lr=1e-3)),
            default_hooks=dict(
                checkpoint=dict(type='CheckpointHook', by_epoch=False, interval=2),
                random_state=dict(type='addp_mm.RandomStateHook'),
                logger=dict(type='LoggerHook', interval=1),
            ),
            visualizer=dict(type='Visualizer', vis_backends=[dict(type='LocalVisBackend')], name=name),
            default_scope=scope,
            experiment_name=name,
            log_level='ERROR',
            randomness=dict(seed=seed),
            cfg=Config(),
            **settings,
        )
        if change:
            change(runner)
        torch.rand(7)  # a new process would not have the random state of an uninterrupted run either
        runner.train()
    return runner
