# Copyright (c) addp_mm contributors. Apache-2.0.
import numpy as np
import pytest
from helpers.image_sets import pixels, write_folder
from PIL import Image

from addp_mm.errors import UserError
from addp_mm.evaluation import open_images


def read_all(images, batch_size=3):
    return [image for batch in images.batches(0, len(images), batch_size) for image in batch]


@pytest.fixture
def said(monkeypatch):
    lines = []
    monkeypatch.setattr('addp_mm.evaluation.image_sets.print_log', lambda words, **_: lines.append(words))
    return lines


def test_a_folder_and_an_array_hold_the_same_images(tmp_path, said):
    images = pixels(7)
    np.savez(tmp_path / 'plain.npz', images, labels=np.arange(7))
    np.savez_compressed(tmp_path / 'small.npz', images)
    write_folder(tmp_path / 'folder/deep', images)
    for name in ('plain.npz', 'small.npz', 'folder'):
        found = open_images(tmp_path / name)
        assert len(found) == 7
        assert found.first_size() == (8, 8)
        np.testing.assert_array_equal(read_all(found), images)
        for start, stop in ((4, 6), (6, 7), (1, 3), (4, 7)):  # forward and back
            np.testing.assert_array_equal(np.concatenate(list(found.batches(start, stop, 64))), images[start:stop])
        found.warn()
    assert said == []


def test_images_are_resized_and_cropped(tmp_path, said):
    (tmp_path / 'a').mkdir()
    wide = np.repeat(pixels(1, 20)[0], 2, 1)
    Image.fromarray(wide).save(tmp_path / 'a/wide.png')
    np.savez(tmp_path / 'a.npz', wide[None])
    (one,), (other,) = (read_all(open_images(tmp_path / name, 10)) for name in ('a', 'a.npz'))
    expected = np.asarray(Image.fromarray(wide).resize((20, 10), Image.Resampling.BICUBIC))[:, 5:15]
    np.testing.assert_array_equal(one, expected)
    np.testing.assert_array_equal(other, expected)


def test_grey_deep_and_transparent_images_are_converted_and_counted(tmp_path, said):
    write_folder(tmp_path, pixels(2))
    Image.fromarray(np.full((8, 8), 40, np.uint8)).save(tmp_path / 'grey.png')
    Image.fromarray(np.full((8, 8), 65535, np.uint16)).save(tmp_path / 'deep.png')
    Image.fromarray(np.full((8, 8, 4), (0, 0, 0, 0), np.uint8)).save(tmp_path / 'clear.png')
    Image.fromarray(pixels(1, 12)[0]).save(tmp_path / 'larger.png')
    found = open_images(tmp_path)
    by_name = dict(zip([path.name for path in found.paths], read_all(found), strict=True))
    assert (by_name['grey.png'] == 40).all()
    assert (by_name['deep.png'] == 255).all()
    assert (by_name['clear.png'] == 255).all()
    found.warn()
    assert [line.removeprefix(f'{tmp_path}: ') for line in said] == [
        '2 image(s) in grey were repeated to three channels',
        '1 image(s) of 16 bits were scaled to 8',
        '1 image(s) with transparency were blended onto white',
        'images of 2 sizes, 8x8 (5), 12x12 (1): give img_size to bring them to one',
    ]


def test_jpeg_gives_a_warning_if_it_is_not_resized(tmp_path, said):
    Image.fromarray(pixels(1)[0]).save(tmp_path / 'a.jpg')
    (tmp_path / 'note.txt').touch()
    assert len(open_images(tmp_path, 4)) == 1
    assert said == []
    open_images(tmp_path)
    assert len(said) == 1
    assert 'save as PNG' in said[0]


def test_what_is_no_set_of_images_is_refused(tmp_path):
    (tmp_path / 'empty').mkdir()
    with pytest.raises(UserError, match='empty has no images'):
        open_images(tmp_path / 'empty')
    with pytest.raises(UserError, match='none does not exist. Give a folder of images'):
        open_images(tmp_path / 'none')
    write_folder(tmp_path / 'a', pixels(1))
    (tmp_path / 'a/broken.png').write_bytes(b'no image')
    with pytest.raises(UserError, match='broken.png: cannot be read as an image'):
        read_all(open_images(tmp_path / 'a'))


@pytest.mark.parametrize(
    'arrays, words',
    [
        (dict(images=np.zeros((2, 8, 8, 3), np.uint8)), r'not a .npz file with the images arr_0 .*arr_0.npy'),
        (dict(arr_0=np.zeros((2, 3, 8, 8), np.uint8)), r'arr_0 is uint8 \(2, 3, 8, 8\), and must be uint8 \(N, H, W'),
        (dict(arr_0=np.zeros((2, 8, 8, 3), np.float32)), 'arr_0 is float32'),
        (dict(arr_0=np.zeros((0, 8, 8, 3), np.uint8)), r'arr_0 is uint8 \(0, 8'),
        (dict(arr_0=np.zeros((2, 8, 8, 3), np.uint8, order='F')), 'in Fortran order'),
        (dict(arr_0=np.array([None])), 'arr_0 is object'),
    ],
)
def test_arrays_that_are_no_images_are_refused(tmp_path, arrays, words):
    np.savez(tmp_path / 'a.npz', **arrays)
    with pytest.raises(UserError, match=words):
        open_images(tmp_path / 'a.npz')


def test_a_file_that_is_no_archive_is_refused(tmp_path):
    (tmp_path / 'a.npz').write_bytes(b'text')
    with pytest.raises(UserError, match='a.npz is not a .npz file'):
        open_images(tmp_path / 'a.npz')


@pytest.mark.parametrize('save', [np.savez, np.savez_compressed])
def test_a_damaged_array_is_refused(tmp_path, save):
    save(tmp_path / 'a.npz', pixels(20, 64))
    content = bytearray((tmp_path / 'a.npz').read_bytes())
    content[len(content) // 2] ^= 255
    (tmp_path / 'a.npz').write_bytes(content)
    with pytest.raises(UserError, match='a.npz: arr_0 is damaged'):
        read_all(open_images(tmp_path / 'a.npz'))


def test_the_fingerprint_follows_names_sizes_and_times(tmp_path):
    folder = write_folder(tmp_path / 'a', pixels(2))
    first = open_images(folder).fingerprint()
    assert open_images(folder).fingerprint() == first != open_images(folder, 4).fingerprint()
    Image.fromarray(pixels(1, seed=5)[0]).save(folder / '0001.png')
    second = open_images(folder).fingerprint()
    (folder / '0001.png').rename(folder / '0002.png')
    assert len({first, second, open_images(folder).fingerprint()}) == 3


@pytest.mark.parametrize('record', ['generation.json', 'inpainting.json'])
def test_an_output_folder_with_figures_is_refused(tmp_path, record):
    write_folder(tmp_path / 'images', pixels(3))
    write_folder(tmp_path, pixels(1, 32))
    assert len(open_images(tmp_path)) == 4
    (tmp_path / record).write_text('{}')
    with pytest.raises(UserError, match=rf'is an output folder \({record}\).*: give {tmp_path / "images"}$'):
        open_images(tmp_path)
    assert len(open_images(tmp_path / 'images')) == 3
