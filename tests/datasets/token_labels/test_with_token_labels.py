# Copyright (c) addp_mm contributors. Apache-2.0.
"""mmpretrain's datasets with label maps: what a data sample holds, and what is refused."""

import importlib
import pickle

import numpy as np
import pytest
import torch
from helpers.label_map_files import dense, random_map, write_maps
from mmengine.registry import DATASETS, DefaultScope
from PIL import Image

import addp_mm  # noqa: F401  # before the packages, which need its mmcv._ext
from addp_mm.datasets.errors import DatasetError
from addp_mm.datasets.samplers.seeded_samples import SampleIndex
from addp_mm.datasets.token_labels.label_map import LabelMapError
from addp_mm.datasets.token_labels.token_labels import token_labels

NAMES = ['cat/1.png', 'cat/2.png', 'dog/1.png']
CROP = [dict(type='RandomResizedCrop', scale=64), dict(type='RandomFlip', prob=0.5)]


@pytest.fixture
def images(tmp_path):
    rng = np.random.default_rng(0)
    for name in NAMES:
        path = tmp_path / 'train' / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (80, 96, 3), np.uint8)).save(path)
    write_maps(tmp_path / 'maps', NAMES)
    return tmp_path


def dataset(root, transforms, **options):
    importlib.import_module('mmpretrain.datasets')
    step = dict(type='addp_mm.WithTokenLabels', label_maps=str(root / 'maps'), images=str(root / 'train'))
    step |= dict(num_classes=11, transforms=transforms) | options
    pipeline = [
        dict(type='addp_mm.SeedAugmentation'),
        dict(type='addp_mm.LoadImage'),
        step,
        dict(type='PackInputs', algorithm_keys=['token_labels']),
    ]
    cfg = dict(type='CustomDataset', data_root=str(root), data_prefix='train', pipeline=pipeline)
    with DefaultScope.overwrite_default_scope('mmpretrain'):
        return DATASETS.build(cfg)


def test_samples_hold_the_labels_of_their_view(images):
    data = dataset(images, [dict(type='Resize', scale=(224, 224))])
    for seed in range(3):
        sample = data[seed]
        assert sample['inputs'].shape == (3, 224, 224)
        labels = sample['data_samples'].token_labels
        assert sample['data_samples'].gt_label.tolist() == [int(seed == 2)]
        torch.testing.assert_close(
            labels[:, 1:].unflatten(1, (14, 14)), dense(random_map(seed), 11), atol=1e-3, rtol=0
        )  # half precision


def test_crops_and_flips_reach_the_labels(images):
    """The labels depend on the sample's position in training, as the crop does."""
    data = dataset(images, CROP)
    found = {}
    for position in range(6):
        sample = data[SampleIndex(1, 5, position)]['data_samples']
        assert sample.token_labels.shape == (11, 17)
        torch.testing.assert_close(sample.token_labels.sum(0), torch.ones(17))
        again = data[SampleIndex(1, 5, position)]['data_samples']
        assert torch.equal(sample.token_labels, again.token_labels)
        found[position] = sample.token_labels
    assert not torch.allclose(found[0], found[1], atol=1e-3)


def test_the_view_is_that_of_the_image(images, monkeypatch):
    """The transform gives the view of the crop and flip that the image had."""
    from addp_mm.datasets.token_labels import with_token_labels

    seen = []
    monkeypatch.setattr(with_token_labels, 'token_labels', lambda *args: seen.append(args) or token_labels(*args))
    data = dataset(images, CROP)
    sample = data[SampleIndex(0, 0, 1)]
    (label_map, view, grid, num_classes) = seen[0]
    assert (grid, num_classes) == ((4, 4), 11)
    flipped = sample['data_samples'].flip
    assert (view[0, 0] < 0) == flipped
    assert torch.equal(sample['data_samples'].token_labels, token_labels(label_map, view, grid, 11))


def test_the_dataset_can_be_sent_to_workers(images):
    data = dataset(
        images, [*CROP, dict(type='RandAugment', policies='timm_increasing', num_policies=2, magnitude_level=9)]
    )
    assert pickle.loads(pickle.dumps(data))[0]['data_samples'].token_labels.shape == (11, 17)
    with DefaultScope.overwrite_default_scope('mmpretrain'):
        loader = torch.utils.data.DataLoader(data, 3, num_workers=1, collate_fn=list)
        (batch,) = loader
    assert [sample['data_samples'].token_labels.shape for sample in batch] == [(11, 17)] * 3


def test_an_image_without_a_map_is_named(images):
    (images / 'train/dog/1.png').rename(images / 'train/dog/9.png')
    with pytest.raises(LabelMapError, match=r'no label map of dog/9\.png.*addp label-maps'):
        dataset(images, CROP)[2]


def test_images_elsewhere_are_named(images):
    with pytest.raises(LabelMapError, match='is not below images='):
        dataset(images, CROP, images=str(images / 'val'))[0]


def test_other_numbers_of_classes_are_refused(images):
    with pytest.raises(LabelMapError, match='label maps of 11 classes, but num_classes is 1000'):
        dataset(images, CROP, num_classes=1000)


def test_a_crop_that_does_not_fit_the_patches_is_refused(images):
    with pytest.raises(LabelMapError, match='60 x 60, which is no multiple of patch_size=16'):
        dataset(images, [dict(type='RandomResizedCrop', scale=60)])[0]


def test_transforms_that_cannot_be_followed_are_refused(images):
    with pytest.raises(DatasetError, match='CenterCrop moves pixels'):
        dataset(images, [dict(type='CenterCrop', crop_size=64)])
