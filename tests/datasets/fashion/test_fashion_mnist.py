# Copyright (c) addp_mm contributors. Apache-2.0.
import numpy as np
import pytest
from helpers.scene_fixtures import few_garments

from addp_mm.datasets.fashion.fashion_mnist import CLASSES, SUBSET_FILE, Garments, garment_alpha, load_garments


def test_subset_is_balanced_small_and_keeps_the_splits_apart():
    assert SUBSET_FILE.stat().st_size <= 3_000_000
    train, val = load_garments('train'), load_garments('val')
    assert np.bincount(train.labels).tolist() == [600] * 10
    assert np.bincount(val.labels).tolist() == [100] * 10
    assert not {image.tobytes() for image in train.images} & {image.tobytes() for image in val.images}


def test_subset_pixels_are_those_of_the_original_files():
    # SHA-256 over pixels and labels, computed from the IDX files of Debian's dataset-fashion-mnist.
    assert load_garments('train').fingerprint() == '80c4d5da9aa8cbae6197c556fb0851e5670dfe514697678cff9cf1cdaa23a33e'
    assert load_garments('val').fingerprint() == 'e46178f13104b2c25378d5590d95a4dbb33eff7fbb743f746a732065254d3dbb'


def test_classes_are_sorted_as_folder_readers_sort_them():
    assert list(CLASSES) == sorted(CLASSES)
    assert len(set(CLASSES)) == 10


@pytest.mark.parametrize('layout', ['', 'FashionMNIST/raw', 'raw'])
@pytest.mark.parametrize('compress', [False, True])
def test_idx_files_give_back_the_garments(tmp_path, write_source, layout, compress):
    garments = few_garments('val', 2)
    write_source(tmp_path / layout, garments, compress, 't10k')
    read = load_garments('val', str(tmp_path))
    assert np.array_equal(read.images, garments.images)
    assert np.array_equal(read.labels, garments.labels)


def test_almost_black_photographs_are_dropped(tmp_path, write_source):
    garments = few_garments('val', 2)
    dark = Garments(np.concatenate([garments.images, np.zeros((1, 28, 28), np.uint8)]), np.append(garments.labels, 0))
    write_source(tmp_path, dark)
    assert len(load_garments('train', str(tmp_path))) == len(garments)


def test_missing_idx_files_name_the_folder(tmp_path):
    with pytest.raises(FileNotFoundError, match=f'{tmp_path}.*train-images-idx3-ubyte.*embedded'):
        load_garments('train', str(tmp_path))


def test_missing_label_file_is_named(tmp_path, write_source):
    write_source(tmp_path, few_garments('val', 1))
    (tmp_path / 'train-labels-idx1-ubyte').unlink()
    with pytest.raises(FileNotFoundError, match='train-labels-idx1-ubyte'):
        load_garments('train', str(tmp_path))


@pytest.mark.parametrize('compress', [False, True])
def test_truncated_idx_file_is_named(tmp_path, write_source, compress):
    write_source(tmp_path, few_garments('val', 2), compress)
    path = next(tmp_path.glob('train-images*'))
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(ValueError, match=f'{path.name}.*truncated'):
        load_garments('train', str(tmp_path))


def test_another_idx_set_is_refused(tmp_path, write_idx):
    write_idx(tmp_path / 'train-images-idx3-ubyte', np.zeros((4, 8, 8)))
    write_idx(tmp_path / 'train-labels-idx1-ubyte', np.zeros(4))
    with pytest.raises(ValueError, match='does not have the files of Fashion-MNIST'):
        load_garments('train', str(tmp_path))


def test_unknown_split_is_refused():
    with pytest.raises(ValueError, match="'test'"):
        load_garments('test')


def test_alpha_fills_prints_and_keeps_openings():
    image = np.zeros((28, 28), np.uint8)
    image[4:24, 4:24] = 200
    image[10:18, 10:18] = 0  # a dark print on a shirt, the opening of a handle on a bag
    image[1, 1] = 255  # an isolated pixel
    shirt, bag = garment_alpha(image, CLASSES.index('shirt')), garment_alpha(image, CLASSES.index('bag'))
    assert shirt.sum() == 20 * 20
    assert bag.sum() == 20 * 20 - 8 * 8
    assert not shirt[1, 1]
    assert not shirt[3].any()
