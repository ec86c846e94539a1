# Copyright (c) addp_mm contributors. Apache-2.0.
"""Every training recipe resumes exactly: its hook, its sampler and its real pipeline."""

import hashlib
import itertools
import json
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers.any_training import SAMPLERS, settings_of
from helpers.label_map_files import write_maps
from helpers.recipes import CONFIGS, load_recipe, recipe_scope
from helpers.seg_data import write_ade20k, write_cityscapes
from mmengine.config import Config
from mmengine.hooks import Hook
from mmengine.model import BaseModel
from mmengine.runner import Runner
from PIL import Image

# they keep numbers or images of earlier iterations, which no checkpoint holds
FORGETFUL = {'CachedMosaic', 'CachedMixUp', 'BatchSyncRandomResize', 'SyncRandomSizeHook'}
_RUNS = itertools.count()
pytestmark = pytest.mark.slow


@pytest.fixture(scope='module')
def recipes():
    paths = (path for path in CONFIGS.rglob('*.py') if '_base_' not in path.relative_to(CONFIGS).parts)
    return {path: cfg for path in sorted(paths) if (cfg := load_recipe(path)).get('train_dataloader')}


def by_epoch(cfg):
    return cfg.train_cfg.get('type', '') == 'EpochBasedTrainLoop' or cfg.train_cfg.get('by_epoch', False)


def kind_of(epochs, loader):
    types = (loader['sampler']['type'], (loader.get('batch_sampler') or {'type': ''})['type'])
    return (epochs, *(name.split('.')[-1] for name in types))


def test_every_recipe_has_the_hook_and_a_kind_of_sampler_that_is_tested(recipes):
    tested = {kind_of(*settings_of(name)) for name in SAMPLERS if name != 'torch, no seed'}
    assert len(recipes) > 120
    for path, cfg in recipes.items():
        assert cfg.default_hooks.random_state == dict(type='addp_mm.RandomStateHook'), path
        assert kind_of(by_epoch(cfg), cfg.train_dataloader) in tested, path
        assert not FORGETFUL & set(re.findall(r"'type': '(?:\w+\.)?(\w+)'", repr(cfg))), path


def leaf(dataset):
    return leaf(dataset['dataset']) if 'dataset' in dataset else dataset


def pipelines(recipes):
    """One recipe for each different pipeline, dataset and kind of sampler."""
    found = {}
    for path, cfg in recipes.items():
        dataset = leaf(cfg.train_dataloader.dataset)
        if 'pipeline' in dataset:  # ids and trajectories have none
            key = json.dumps([dataset.pipeline, dataset.type, *kind_of(by_epoch(cfg), cfg.train_dataloader)])
            found.setdefault(key, path)
    return sorted(found.values())


class Digests(Hook):
    """A digest of each batch; images that are read are counted."""

    priority = 'LOW'

    def __init__(self):
        self.found = []

    def before_train_iter(self, runner, batch_idx, data_batch=None):
        digest = hashlib.sha256(re.sub('0x[0-9a-f]+', '', str(data_batch['data_samples'])).encode())
        for image in data_batch['inputs']:
            digest.update(image.numpy().tobytes())
        self.found.append(digest.hexdigest())


class NoModel(BaseModel):
    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.ones(1))

    def forward(self, inputs, data_samples=None, mode='loss'):
        return dict(loss=self.weight.sum())


def train(cfg, work_dir, resume=None):
    """Train four iterations of two images without a model; return the digests of the batches."""
    name, digests = f'recipe_{next(_RUNS)}', Digests()
    with recipe_scope(cfg):
        Runner(
            model=NoModel(),
            work_dir=str(work_dir),
            train_dataloader=cfg.train_dataloader,
            train_cfg=dict(by_epoch=True, max_epochs=1) if by_epoch(cfg) else dict(by_epoch=False, max_iters=4),
            optim_wrapper=dict(type='OptimWrapper', optimizer=dict(type='SGD', lr=0.1)),
            default_hooks=dict(
                checkpoint=dict(type='CheckpointHook', by_epoch=False, interval=2),
                random_state=cfg.default_hooks.random_state,
            ),
            custom_hooks=[digests],
            visualizer=dict(type='Visualizer', vis_backends=[], name=name),
            default_scope=cfg.default_scope,
            experiment_name=name,
            log_level='ERROR',
            randomness=dict(seed=2),
            resume=resume is not None,
            load_from=resume and str(resume),
            cfg=Config(),
        ).train()
    return digests.found


@pytest.fixture(scope='module')
def roots(tmp_path_factory, written_set):
    """Eight images in the layout of each dataset."""
    folder = tmp_path_factory.mktemp('recipes')
    (folder / 'imagenet/train/n01440764').mkdir(parents=True)
    for number in range(8):
        pixels = np.random.default_rng(number).integers(0, 256, (70, 80, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f'imagenet/train/n01440764/{number}.JPEG')
    write_ade20k(folder / 'ade', ((80, 96), (50, 260)) * 4)
    write_cityscapes(folder / 'cityscapes', ((64, 128),) * 8)
    return dict(
        ImageNet=folder / 'imagenet',
        ADE20KDataset=folder / 'ade',
        CityscapesDataset=folder / 'cityscapes',
        scenes=written_set,
    )


def on_small_data(cfg, roots):
    """The recipe with two images a batch, loaded in this process."""
    loader = cfg.train_dataloader
    loader.update(batch_size=2, num_workers=0, persistent_workers=False)
    loader.dataset.update(dict(times=2) if 'times' in loader.dataset else {})
    dataset = leaf(loader.dataset)
    dataset.update(data_root=f'{roots.get(dataset.type, roots["scenes"])}/', indices=8)
    if dataset.type == 'ImageNet':
        dataset.metainfo = dict(classes=['tench'])
    if dataset.type == 'CocoDataset':
        classes = sorted(path.name for path in (roots['scenes'] / 'objects/train').iterdir())
        dataset.update(ann_file='annotations/instances_train.json', metainfo=dict(classes=classes))
        dataset.data_prefix = dict(img='scenes/train/')
    return cfg


def with_label_maps(cfg, folder):
    """The recipe with label maps of its images, if its pipeline reads some."""
    dataset = leaf(cfg.train_dataloader.dataset)
    for step in (step for step in dataset.pipeline if step.type == 'addp_mm.WithTokenLabels'):
        images = Path(dataset.data_root) / dataset.get('data_prefix', 'train')
        names = sorted(str(path.relative_to(images)) for path in images.rglob('*.*'))
        write_maps(folder, names, num_classes=step.num_classes)
        step.update(label_maps=str(folder), images=str(images))
    return cfg


def test_a_resume_continues_with_the_next_batch_of_each_real_pipeline(tmp_path, recipes, roots, monkeypatch):
    from mmcv.transforms import LoadImageFromFile

    from addp_mm.datasets import LoadImage

    read = []
    for loading in (LoadImageFromFile, LoadImage):
        original = loading.transform

        def counted(self, results, original=original):
            read.append(results['img_path'])
            return original(self, results)

        monkeypatch.setattr(loading, 'transform', counted)
    paths = pipelines(recipes)
    assert len(paths) > 20
    for path in paths:
        folder = tmp_path / path.stem
        cfg = with_label_maps(on_small_data(recipes[path], roots), folder / 'label_maps')
        whole = train(cfg, folder / 'whole')
        assert len(set(whole)) == len(whole) >= 4, path
        read.clear()
        assert train(cfg, folder / 'resumed', folder / 'whole/iter_2.pth') == whole[2:], path
        assert len(read) == 2 * (len(whole) - 2), path
