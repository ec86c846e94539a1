# Copyright (c) addp_mm contributors. Apache-2.0.
"""Images of several sizes must form a batch, which is tried before training."""

from types import SimpleNamespace

import pytest
import torch
from mmengine.dataset import DefaultSampler, InfiniteSampler, default_collate, pseudo_collate
from mmengine.model import BaseDataPreprocessor, BaseModel
from PIL import Image
from torch.utils.data import BatchSampler, DataLoader, Dataset

from addp_mm.checks.before_training import PreflightError
from addp_mm.checks.mixed_sizes import check_mixed_sizes
from addp_mm.datasets.samplers.resumable_sampler import ResumableInfiniteSampler


class Images(Dataset):
    """Images of the given sizes, as files; ``shape`` is what the pipeline makes of a size."""

    def __init__(self, folder, sizes, shape=lambda size: size):
        self.sizes, self.shape, self.folder = sizes, shape, folder
        folder.mkdir(exist_ok=True)
        for index, (height, width) in enumerate(sizes):
            Image.new('RGB', (width, height)).save(folder / f'{index}.png')

    def __len__(self):
        return len(self.sizes)

    def get_data_info(self, index):
        return dict(img_path=str(self.folder / f'{index}.png'))

    def __getitem__(self, index):
        return dict(inputs=torch.zeros(3, *self.shape(self.sizes[index])))


class Model(BaseModel):
    def forward(self, inputs, data_samples=None, mode='tensor'):
        return inputs


class Padding(BaseDataPreprocessor):
    """Pads all images to 99 pixels."""

    def forward(self, data, training=False):
        padded = [torch.nn.functional.pad(one, (0, 99 - one.shape[2], 0, 99 - one.shape[1])) for one in data['inputs']]
        return dict(inputs=torch.stack(padded))


class Stacking(BaseDataPreprocessor):
    def forward(self, data, training=False):
        return dict(inputs=torch.stack(data['inputs']))


def check(train, val=None, preprocessor=None):
    runner = SimpleNamespace(
        train_loop=SimpleNamespace(dataloader=train), val_loop=None if val is None else SimpleNamespace(dataloader=val)
    )
    check_mixed_sizes(runner, Model(preprocessor or Stacking()))


def loader(dataset, batch_size=2, collate=pseudo_collate, **settings):
    settings.setdefault('sampler', InfiniteSampler(dataset))
    return DataLoader(dataset, batch_size, collate_fn=collate, **settings)


MIXED = [(8, 8)] * 5 + [(8, 12)] + [(8, 8)] * 4


@pytest.mark.parametrize('collate', [pseudo_collate, default_collate])
@pytest.mark.parametrize('sampler', [InfiniteSampler, DefaultSampler, ResumableInfiniteSampler])
def test_one_image_of_another_size_is_named(tmp_path, collate, sampler):
    data = Images(tmp_path / 'train', MIXED)
    with pytest.raises(PreflightError) as caught:
        check(loader(data, collate=collate, sampler=sampler(data)))
    wanted = (f'{tmp_path}/train/5.png (8 x 12)', f'{tmp_path}/train/0.png (8 x 8)', 'Resize')
    for words in (*wanted, 'batch_size=1, if no batch normalization is trained'):
        assert words in str(caught.value)


def test_images_that_the_pipeline_or_the_preprocessor_makes_equal_pass(tmp_path):
    check(loader(Images(tmp_path / 'resized', MIXED, lambda size: (6, 6))))
    data = Images(tmp_path / 'train', MIXED)
    check(loader(data), preprocessor=Padding())
    check(loader(data, batch_size=1))
    check(loader(Images(tmp_path / 'equal', [(8, 8)] * 4)))


def test_a_random_resize_without_a_crop_is_found(tmp_path):
    data = Images(tmp_path / 'train', [(8, 8)] * 4, lambda size: (8, int(torch.randint(8, 10000, ()))))
    state = torch.get_rng_state()
    with pytest.raises(PreflightError, match='train_dataloader would fail: images of different sizes'):
        check(loader(data))
    assert torch.equal(state, torch.get_rng_state())


def test_batches_that_a_sampler_forms_by_size_are_not_checked(tmp_path):
    data = Images(tmp_path / 'train', MIXED)
    check(DataLoader(data, batch_sampler=[[0, 1], [5]], collate_fn=pseudo_collate))

    class BySize(BatchSampler):
        pass

    check(DataLoader(data, batch_sampler=BySize(InfiniteSampler(data), 2, False), collate_fn=pseudo_collate))


def test_images_in_order_fail_only_if_a_batch_has_two_sizes(tmp_path):
    equal = loader(Images(tmp_path / 'train', [(8, 8)] * 4))
    two_cameras = Images(tmp_path / 'val', [(8, 8)] * 4 + [(8, 12)] * 4)

    def in_order(batch_size):
        return loader(two_cameras, batch_size, sampler=DefaultSampler(two_cameras, shuffle=False))

    for batch_size in (1, 2, 4):
        check(equal, in_order(batch_size))
    for batch_size in (3, 5, 8):
        with pytest.raises(PreflightError, match=r'val_dataloader would fail.*val/4.png \(8 x 12\)'):
            check(equal, in_order(batch_size))


def test_a_damaged_image_of_another_size_is_named(tmp_path):
    def shape(size):
        if size == (8, 12):
            raise OSError('truncated')
        return size

    with pytest.raises(PreflightError, match=r'would fail on .*train/5.png: OSError: truncated'):
        check(loader(Images(tmp_path / 'train', MIXED, shape)))
