# Copyright (c) addp_mm contributors. Apache-2.0.
"""Training on an LMDB database or on WebDataset shards equals training on the image files."""

import tarfile
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

ROOT = Path(__file__).parents[2]
CONFIG = """
_base_ = {base!r}
train_dataloader = dict(batch_size=4, num_workers=1, dataset=dict(
    {source}, index_file={index!r}, split='train', val_every=4,
    pipeline=[dict(type='addp_mm.LoadImage'), dict(type='addp_mm.MakeView', image_size=16, augmentation='crop'),
              dict(type='PackInputs')]))
val_dataloader = dict(batch_size=4, num_workers=0, sampler=dict(type='DefaultSampler', shuffle=False),
    collate_fn=dict(type='default_collate'), dataset=dict(
    {source}, index_file={index!r}, split='val', val_every=4,
    pipeline=[dict(type='addp_mm.LoadImage'), dict(type='addp_mm.MakeView', image_size=16, augmentation='none'),
              dict(type='PackInputs')]))
model = dict(
    type='addp_mm.TokenizerPretrain', quantize_from=2,
    data_preprocessor=dict(type='SelfSupDataPreprocessor', mean=[0.] * 3, std=[255.] * 3, to_rgb=True),
    tokenizer=dict(type='addp_mm.VQTokenizer', stem_stride=4, base_channels=8, channel_mults=(1, ), num_res_blocks=1,
                   num_mid_blocks=1, codebook_size=16, embed_dims=4, num_groups=4, shortcut_from='input'))
optim_wrapper = dict(type='OptimWrapper', optimizer=dict(type='AdamW', lr=1e-3))
train_cfg = dict(type='IterBasedTrainLoop', max_iters=8, val_interval=4)
val_cfg = dict()
val_evaluator = [dict(type='addp_mm.PeakSignalNoiseRatio'), dict(type='addp_mm.CodebookUsage', codebook_size=16)]
default_hooks = dict(checkpoint=dict(interval=8), logger=dict(interval=1))
"""


def write_images(folder):
    folder.mkdir()
    for index in range(12):
        pixels = np.random.default_rng(index).integers(0, 256, (5, 6, 3)).astype(np.uint8).repeat(4, 0).repeat(5, 1)
        Image.fromarray(pixels).save(folder / f'{index:03d}.png')
    return sorted(folder.iterdir())


def write_shards(folder, files):
    """Three shards with a label for each image."""
    folder.mkdir()
    for shard, members in enumerate(np.array_split(files, 3)):
        with tarfile.open(folder / f'{shard:02d}.tar', 'w') as archive:
            for file in members:
                label = folder.parent / f'{file.stem}.cls'
                label.write_text('7')
                archive.add(file, file.name)
                archive.add(label, label.name)


def write_database(path, files):
    lmdb = pytest.importorskip('lmdb', reason='comes with addp_mm[data]')
    with lmdb.open(str(path), map_size=2**24) as database, database.begin(write=True) as transaction:
        for file in files:
            transaction.put(file.name.encode(), file.read_bytes())


def train(run_tool, folder, name, source):
    (folder / f'{name}.py').write_text(
        CONFIG.format(
            base=str(ROOT / 'configs/_base_/own_data/runtime.py'), index=str(folder / f'{name}.index'), source=source
        )
    )
    finished = run_tool('train.py', folder / f'{name}.py', '--work-dir', folder / name)
    assert finished.status == 0, finished.output
    assert finished.output.count('reconstruction/psnr') == 2
    return torch.load(folder / name / 'iter_8.pth', weights_only=False)['state_dict']


@pytest.fixture(scope='module')
def files(tmp_path_factory, run_tool):
    """Folder, its image files, and the weights trained on them."""
    folder = tmp_path_factory.mktemp('packed')
    images = write_images(folder / 'images')
    return folder, images, train(run_tool, folder, 'files', f'type="addp_mm.ImageFiles", root="{folder / "images"}"')


@pytest.mark.slow
@pytest.mark.parametrize('kind', ['shards', 'database'])
def test_training_on_packed_images_is_that_on_their_files(run_tool, files, kind):
    folder, images, expected = files
    packed = folder / kind
    if kind == 'shards':
        write_shards(packed, images)
        source = f'type="addp_mm.WebDatasetImages", shards="{packed}"'
    else:
        write_database(packed, images)
        source = f'type="addp_mm.LMDBImages", path="{packed}"'
    trained = train(run_tool, folder, f'trained_on_{kind}', source)
    assert trained.keys() == expected.keys()
    assert trained['iteration'] == 8
    assert [name for name in expected if not torch.equal(trained[name], expected[name])] == []
