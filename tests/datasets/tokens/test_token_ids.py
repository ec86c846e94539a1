# Copyright (c) addp_mm contributors. Apache-2.0.
"""Stored ids: their views, their folder, and the dataset that reads them."""

import json
import pickle
import re
import shutil

import numpy as np
import pytest
import torch
from mmengine.dataset import default_collate
from torch.utils.data import DataLoader

from addp_mm.datasets.samplers.seeded_samples import SampleIndex
from addp_mm.datasets.tokens.fingerprints import build_loaded, tokenizer_fingerprint
from addp_mm.datasets.tokens.token_ids import TokenIds
from addp_mm.datasets.tokens.token_store import TokenStoreError, TokenWriter
from addp_mm.datasets.views.views import Views
from addp_mm.registry import DATASETS, MODELS

TOKENIZER = dict(
    type='addp_mm.VQTokenizer',
    stem_stride=4,
    base_channels=32,
    channel_mults=(1,),
    num_res_blocks=1,
    num_mid_blocks=1,
    codebook_size=64,
    embed_dims=4,
)


@pytest.fixture(scope='module')
def tokenizer(tmp_path_factory):
    """Config of a tokenizer whose weights are on disk."""
    torch.manual_seed(5)
    path = tmp_path_factory.mktemp('tokenizer') / 'vq.pth'
    torch.save(dict(state_dict=MODELS.build(dict(TOKENIZER)).state_dict()), path)
    return dict(TOKENIZER, init_cfg=dict(type='addp_mm.Pretrained', checkpoint=str(path), strict=True))


def settings(fingerprint='a' * 64, index=0, of=1, count=5):
    return dict(
        tokenizer=dict(fingerprint=fingerprint, codebook_size=64),
        images=dict(count=count, fingerprint='b'),
        views=dict(count=3, augmentation='crop'),
        shard=dict(index=index, of=of),
        notes=dict(any='thing'),
    )


def rows_of(first, stop, views=3, length=4):
    """Ids that encode their position: 16 * image + view."""
    images, number = np.arange(first, stop)[:, None, None], np.arange(views)[None, :, None]
    return np.broadcast_to(images * 16 + number, (stop - first, views, length)).astype(np.uint16)


def written(folder, first=0, stop=5, broken=(), **options):
    writer = TokenWriter(folder, settings(**options), (stop - first, 3, 4), 'uint16')
    writer.write(rows_of(first, stop), {k: (f'{k}.png', 'cut off') for k in broken})
    writer.save()
    return folder


# --- views


def photo(height=40, width=60, channels=3, dtype=np.uint8):
    return np.random.default_rng(0).integers(0, 256, (height, width, channels)).astype(dtype)


def test_a_view_depends_on_seed_image_and_number_alone():
    views = Views(16, count=4, seed=7)
    made = views.make(photo(), 3)
    assert made.shape == (4, 3, 16, 16)
    assert made.dtype == np.uint8
    np.random.seed(1)  # noqa: NPY002  # must not matter
    assert np.array_equal(made, views.make(photo(), 3))
    assert np.array_equal(made[:2], Views(16, count=2, seed=7).make(photo(), 3))
    assert not np.array_equal(made, views.make(photo(), 4))
    assert not np.array_equal(made, Views(16, count=4, seed=8).make(photo(), 3))
    assert len({view.tobytes() for view in made}) == 4


def test_crops_have_the_given_size_and_shape_and_flip_half_of_the_time():
    # the values are the coordinates: they show which part a view is
    rows, columns = np.mgrid[:120, :160].astype(np.float32)
    views = Views(8, count=300, crop_scale=(0.2, 0.6), interpolation='bilinear').make(np.stack([rows, columns], -1), 0)
    # the centres of the first and last of 8 samples are 7/8 of a side apart
    height = (views[:, 0, -1].mean(-1) - views[:, 0, 0].mean(-1)) * 8 / 7
    width = (views[:, 1, :, -1].mean(-1) - views[:, 1, :, 0].mean(-1)) * 8 / 7
    area, aspect = height * abs(width) / (120 * 160), abs(width) / height
    assert 0.17 < area.min() < 0.25
    assert 0.5 < area.max() < 0.63
    assert aspect.min() > 0.72
    assert aspect.max() < 1.39
    assert aspect.min() < 0.8
    assert aspect.max() > 1.25
    assert abs((width < 0).mean() - 0.5) < 0.1


def test_the_middle_square_and_its_mirror_image():
    image = photo()
    plain, mirrored = Views(40, count=2, augmentation='flip').make(image, 0)
    assert np.array_equal(plain, image[:, 10:50].transpose(2, 0, 1))
    assert np.array_equal(mirrored, plain[..., ::-1])
    assert np.array_equal(Views(40, augmentation='none').make(image, 0)[0], plain)


@pytest.mark.parametrize('channels, dtype', [(1, np.uint8), (3, np.float32), (7, np.float32)])
def test_views_of_any_number_of_channels_equal_those_of_each_channel(channels, dtype):
    image = photo(channels=channels, dtype=dtype)
    views = Views(16, count=2)
    made = views.make(image, 0)
    assert made.shape == (2, channels, 16, 16)
    assert made.dtype == dtype
    assert made.min() >= 0
    assert made.max() <= 255
    for channel in range(channels):
        assert np.array_equal(views.make(image[..., channel : channel + 1], 0)[:, 0], made[:, channel])


def test_eight_bits_are_resized_alike_with_one_channel_and_with_three():
    image = photo() // 2 + 64  # no overshoot: Pillow before 13 cuts it off between rows and columns
    three = Views(16, count=2).make(image, 0).astype(int)
    single = np.stack([Views(16, count=2).make(image[..., k : k + 1], 0)[:, 0] for k in range(3)], 1)
    assert abs(three - single).max() <= 1


@pytest.mark.parametrize(
    'options, words',
    [
        (dict(augmentation='flip', count=3), 'gives 1 to 2 different views, not 3'),
        (dict(augmentation='none', count=2), 'gives 1 to 1'),
        (dict(count=0), 'not 0'),
        (dict(augmentation='blur'), "got 'blur'"),
        (dict(interpolation='nearest'), "'nearest'"),
        (dict(crop_scale=(0.5, 0.2)), 'smallest <= largest'),
        (dict(seed=-1), 'seed'),
    ],
)
def test_views_that_cannot_be_made_are_refused(options, words):
    with pytest.raises(ValueError, match=words):
        Views(16, **options)


def test_settings_contain_what_changes_the_pixels():
    assert Views(16, count=2, augmentation='flip', seed=3).settings() == dict(
        image_size=16, count=2, augmentation='flip', interpolation='bicubic'
    )
    assert {'crop_scale', 'seed'} <= set(Views(16).settings())


# --- fingerprints


def test_a_fingerprint_depends_on_weights_and_arguments(tokenizer, tmp_path):
    module = build_loaded(tokenizer)
    own = tokenizer_fingerprint(module, tokenizer)
    # the same arguments, written in another way
    same = dict(tokenizer, channel_mults=[1], in_channels=3, init_cfg=None)
    assert tokenizer_fingerprint(build_loaded(tokenizer), same) == own
    assert tokenizer_fingerprint(module, dict(tokenizer, normalize_codes=True)) != own
    module.decoder.conv_out.bias.data[0] += 1e-6
    assert tokenizer_fingerprint(module, tokenizer) != own
    half = {key: value.half() for key, value in build_loaded(tokenizer).state_dict().items()}
    torch.save(half, tmp_path / 'half.pth')
    rounded = dict(tokenizer, init_cfg=dict(tokenizer['init_cfg'], checkpoint=str(tmp_path / 'half.pth')))
    assert tokenizer_fingerprint(build_loaded(rounded), rounded) != own


# --- the folder


def test_an_interrupted_writer_resumes_after_the_last_save(tmp_path):
    whole = written(tmp_path / 'whole', broken=[1, 4])
    writer = TokenWriter(tmp_path / 'ids', settings(), (5, 3, 4), 'uint16')
    writer.write(rows_of(0, 2), {1: ('1.png', 'cut off')})
    writer.save()
    writer.write(rows_of(2, 5) + 1, {4: ('4.png', 'lost')})  # rows of a process that was killed before it saved them
    again = TokenWriter(tmp_path / 'ids', settings(), (5, 3, 4), 'uint16')
    assert (again.done, len(again.broken), again.complete) == (2, 1, False)
    again.write(rows_of(2, 5), {4: ('4.png', 'cut off')})
    again.save()
    assert again.complete
    for path in sorted(whole.iterdir()):
        assert path.read_bytes() == (tmp_path / 'ids' / path.name).read_bytes()
    assert [path.name for path in sorted(whole.iterdir())] == ['ids.npy', 'tokens.json']
    assert TokenWriter(tmp_path / 'ids', settings(), (5, 3, 4), 'uint16').complete


def test_a_writer_that_was_stopped_before_the_last_renaming_finishes(tmp_path):
    folder = written(tmp_path / 'ids')
    (folder / 'ids.npy').rename(folder / 'ids.npy.partial')
    assert TokenWriter(folder, settings(), (5, 3, 4), 'uint16').complete
    assert len(TokenIds(folder)) == 5


def test_ids_of_other_settings_are_not_continued(tmp_path):
    folder = written(tmp_path / 'ids')
    with pytest.raises(TokenStoreError, match='tokenizer.fingerprint is aaaaaaaaaaaa…, but cccccccccccc'):
        TokenWriter(folder, settings(fingerprint='c' * 64), (5, 3, 4), 'uint16')
    with pytest.raises(TokenStoreError, match='images.count is 5, but 6 is needed'):
        TokenWriter(folder, settings(count=6), (5, 3, 4), 'uint16')
    (tmp_path / 'other').mkdir()
    (tmp_path / 'other/thesis.txt').write_text('mine')
    with pytest.raises(TokenStoreError, match=r'not empty and has no tokens\.json'):
        TokenWriter(tmp_path / 'other', settings(), (5, 3, 4), 'uint16')


@pytest.mark.parametrize(
    'damage, words',
    [
        (lambda f: (f / 'ids.npy').write_bytes((f / 'ids.npy').read_bytes()[:-8]), r'ids\.npy: cannot be read'),
        (lambda f: (f / 'ids.npy').unlink(), 'is incomplete, 5 of 5'),
        (lambda f: (f / 'tokens.json').write_text('{"format": 1,'), r'tokens\.json: damaged'),
        (lambda f: (f / 'tokens.json').write_text('{"format": 9}'), 'format 9'),
        (lambda f: (f / 'tokens.json').unlink(), 'has no stored ids'),
        (
            lambda f: np.save(f / 'ids.npy', np.zeros((5, 2, 4), np.uint16)),
            r'of shape \(5, 2, 4\), but tokens\.json has',
        ),
    ],
)
def test_a_damaged_folder_is_named(tmp_path, damage, words):
    folder = written(tmp_path / 'ids')
    damage(folder)
    with pytest.raises(TokenStoreError, match=words):
        TokenIds(folder)


def test_a_partial_file_that_was_cut_off_is_not_filled_up_with_zeros(tmp_path):
    writer = TokenWriter(tmp_path / 'ids', settings(), (5, 3, 4), 'uint16')
    writer.write(rows_of(0, 2), {})
    writer.save()
    path = tmp_path / 'ids/ids.npy.partial'
    path.write_bytes(path.read_bytes()[:-8])
    with pytest.raises(TokenStoreError, match='truncated'):
        TokenWriter(tmp_path / 'ids', settings(), (5, 3, 4), 'uint16')


def test_incomplete_ids_are_not_trained_on(tmp_path):
    writer = TokenWriter(tmp_path / 'ids', settings(), (5, 3, 4), 'uint16')
    writer.write(rows_of(0, 2), {})
    writer.save()
    with pytest.raises(TokenStoreError, match='is incomplete, 2 of 5 images are done'):
        TokenIds(tmp_path / 'ids')


# --- the dataset


def test_an_item_is_a_random_view_of_its_image(tmp_path):
    data = DATASETS.build(dict(type='addp_mm.TokenIds', data_root=str(written(tmp_path / 'ids'))))
    assert len(data) == 5
    seen = {image: set() for image in range(5)}
    for _ in range(40):
        for image in range(5):
            ids = data[image]['inputs']
            assert ids.dtype == torch.int64
            assert ids.shape == (4,)
            assert len(ids.unique()) == 1
            assert ids[0] // 16 == image
            seen[image].add(int(ids[0]) % 16)
    assert all(views == {0, 1, 2} for views in seen.values())
    np.random.seed(3)  # noqa: NPY002
    first = [data[k % 5]['inputs'][0].item() for k in range(30)]
    np.random.seed(3)  # noqa: NPY002
    assert first == [data[k % 5]['inputs'][0].item() for k in range(30)]
    fixed = TokenIds(tmp_path / 'ids', random_view=False)
    assert [fixed[k]['inputs'][0].item() for k in range(5)] == [0, 16, 32, 48, 64]
    for index in (5, -1):
        with pytest.raises(IndexError):
            fixed[index]


def test_under_a_resumable_sampler_views_follow_from_the_position_in_the_training(tmp_path):
    data = TokenIds(written(tmp_path / 'ids'))
    positions = [SampleIndex(k % 5, 7, k) for k in range(40)]
    first = [data[position]['inputs'][0].item() for position in positions]
    assert first[20:] == [data[position]['inputs'][0].item() for position in positions[20:]]
    assert len({view % 16 for view in first}) == 3


def test_indices_skip_broken_images_in_all_shards(tmp_path):
    """Images 0, 3, 4 and 6 of seven in three shards are broken."""
    for index, (first, stop, broken) in enumerate([(0, 2, [0]), (2, 5, [4, 3]), (5, 7, [6])]):
        written(tmp_path / f'ids/shard-000{index}-of-0003', first, stop, broken, index=index, of=3)
    data = TokenIds(tmp_path / 'ids', random_view=False)
    assert [data[k]['inputs'][0].item() // 16 for k in range(len(data))] == [1, 2, 5]


def test_shards_must_be_complete_and_of_one_kind(tmp_path):
    written(tmp_path / 'ids/shard-0000-of-0002', 0, 2, index=0, of=2)
    with pytest.raises(TokenStoreError, match='of 2 shards, 1 are missing'):
        TokenIds(tmp_path / 'ids')
    written(tmp_path / 'ids/shard-0001-of-0002', 2, 5, index=1, of=2, fingerprint='c' * 64)
    with pytest.raises(TokenStoreError, match='do not belong together'):
        TokenIds(tmp_path / 'ids')


def test_shards_of_another_number_of_parts_are_refused(tmp_path):
    for index, of in ((0, 2), (1, 2), (1, 3)):
        written(tmp_path / f'ids/shard-000{index}-of-000{of}', 0, 6, index=index, of=of)
    with pytest.raises(TokenStoreError, match='0001-of-0003 and .*-0000-of-0002 do not belong together: shard.of is 2'):
        TokenIds(tmp_path / 'ids')
    shutil.rmtree(tmp_path / 'ids/shard-0001-of-0003')
    assert len(TokenIds(tmp_path / 'ids')) == 12


def test_nothing_but_broken_images_is_refused(tmp_path):
    with pytest.raises(TokenStoreError, match='none of the 5 images'):
        TokenIds(written(tmp_path / 'ids', broken=range(5)))


def test_ids_of_another_tokenizer_other_images_or_views_are_refused(tmp_path, tokenizer):
    own = tokenizer_fingerprint(build_loaded(tokenizer), tokenizer)
    folder = written(tmp_path / 'ids', fingerprint=own)
    assert len(TokenIds(folder, tokenizer=tokenizer, images=dict(fingerprint='b'), views=dict(count=3))) == 5
    assert len(TokenIds(folder, images=dict(count=5), views=dict(augmentation='crop', count=3))) == 5
    for wrong, words in (
        (dict(tokenizer=dict(tokenizer, normalize_codes=True)), 'tokenizer.fingerprint is'),
        (dict(images=dict(fingerprint='c')), "images.fingerprint is 'b', but 'c' is needed"),
        (dict(images=dict(count=6)), 'images.count is 5, but 6 is needed'),
        (dict(views=dict(count=8)), 'views.count is 3, but 8 is needed'),
        (dict(views=dict(augmentation='flip')), "views.augmentation is 'crop', but 'flip' is needed"),
    ):
        with pytest.raises(TokenStoreError, match=re.escape(words)):
            TokenIds(folder, **wrong)
    with pytest.raises(ValueError, match='the tokenizer has no trained weights'):
        TokenIds(folder, tokenizer=TOKENIZER)


def test_workers_get_a_path_not_the_ids(tmp_path):
    folder = tmp_path / 'ids'
    writer = TokenWriter(folder, settings(count=5000), (5000, 3, 4), 'uint16')
    writer.write(np.zeros((5000, 3, 4), np.uint16), {})
    writer.save()
    data = TokenIds(folder)
    content = pickle.dumps(data)
    assert len(content) < 4000 < (folder / 'ids.npy').stat().st_size
    assert len(pickle.loads(content)) == 5000
    batches = [*DataLoader(data, 1000, num_workers=1, collate_fn=default_collate)]
    assert [batch['inputs'].shape for batch in batches] == [(1000, 4)] * 5


def test_metainfo_describes_tokenizer_images_and_views(tmp_path):
    folder = written(tmp_path / 'ids')
    assert TokenIds(folder).metainfo == {
        key: json.loads((folder / 'tokens.json').read_text())[key] for key in ('tokenizer', 'images', 'views')
    }
