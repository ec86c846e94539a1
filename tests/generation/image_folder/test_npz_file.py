# Copyright (c) addp_mm contributors. Apache-2.0.
import numpy as np
import pytest

from addp_mm.generation.image_folder import write_npz

IMAGES = np.random.default_rng(0).integers(0, 256, (5, 4, 6, 3), dtype=np.uint8)


def test_numpy_reads_the_images_and_classes(tmp_path):
    write_npz(tmp_path / 'images.npz', iter(IMAGES), 5, [2, 0, 1, 2, 0])
    with np.load(tmp_path / 'images.npz') as archive:
        assert archive.files == ['arr_0', 'arr_1']
        assert archive['arr_0'].dtype == np.uint8
        assert (archive['arr_0'] == IMAGES).all()
        assert archive['arr_1'].tolist() == [2, 0, 1, 2, 0]
    np.savez(tmp_path / 'of_numpy.npz', IMAGES)
    write_npz(tmp_path / 'images.npz', iter(IMAGES), 5)
    with np.load(tmp_path / 'images.npz') as archive, np.load(tmp_path / 'of_numpy.npz') as other:
        assert archive.files == other.files == ['arr_0']


def test_equal_images_give_equal_bytes(tmp_path):
    for name in 'ab':
        write_npz(tmp_path / name, iter(IMAGES), 5)
    assert (tmp_path / 'a').read_bytes() == (tmp_path / 'b').read_bytes()


@pytest.mark.parametrize(
    'images', [IMAGES[:4], [*IMAGES, IMAGES[0]], [*IMAGES[:4], IMAGES[4, :2]]], ids=['few', 'many', 'size']
)
def test_a_wrong_number_or_size_leaves_no_file(tmp_path, images):
    with pytest.raises(ValueError, match='of 5'):
        write_npz(tmp_path / 'images.npz', iter(images), 5)
    assert not list(tmp_path.iterdir())
