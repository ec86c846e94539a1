# Copyright (c) addp_mm contributors. Apache-2.0.
"""Uploaded images: what is read, what is refused, and with which words."""

import struct
import zlib

import numpy as np
import pytest
import torch
from PIL import Image

from addp_mm.app.example_scenes import example_scene
from addp_mm.app.uploads import opened, read_upload, reduce_to, shown, to_tensor
from addp_mm.errors import ConfigError

PIXELS = np.random.default_rng(0).integers(0, 256, (20, 30, 3)).astype(np.uint8)


def test_reads_an_image_exactly(tmp_path):
    Image.fromarray(PIXELS).save(tmp_path / 'a.png')
    pixels, changed = read_upload(str(tmp_path / 'a.png'))
    assert np.array_equal(pixels, PIXELS)
    assert changed == ''


def test_sixteen_bits_are_scaled_with_a_word(tmp_path):
    Image.fromarray(np.array([[0, 65535, 257 * 7]], np.uint16)).save(tmp_path / 'deep.png')
    pixels, changed = read_upload(str(tmp_path / 'deep.png'))
    assert pixels[0].tolist() == [[0] * 3, [255] * 3, [7] * 3]
    assert changed.startswith('16 bits of each channel were scaled to 8')


@pytest.mark.parametrize(
    'content, words',
    [
        (b'', r'bad\.png is empty \(0 bytes\)'),
        (b'no image', r'bad\.png cannot be read as an image'),
        (b'\x89PNG\r\n\x1a\n' + bytes(50), r'bad\.png cannot be read as an image'),
    ],
)
def test_bad_files_are_refused_with_their_name(tmp_path, content, words):
    (tmp_path / 'bad.png').write_bytes(content)
    with pytest.raises(ConfigError, match=words):
        read_upload(str(tmp_path / 'bad.png'))


def test_a_huge_image_is_refused_before_it_is_decoded(tmp_path, monkeypatch):
    Image.new('1', (6000, 5000)).save(tmp_path / 'huge.png')
    monkeypatch.setattr('addp_mm.app.uploads.read_image', None)
    with pytest.raises(ConfigError, match='huge.png has 6000 x 5000 pixels; the page takes at most 25 megapixels'):
        read_upload(str(tmp_path / 'huge.png'))
    with pytest.raises(ConfigError, match='upload an image, or take the example scene'):
        read_upload(None)


def test_a_header_beyond_the_limit_of_the_reader_is_refused_too(tmp_path):
    header = struct.pack('>IIBBBBB', 60000, 60000, 1, 0, 0, 0, 0)  # 3,600 megapixels
    chunks = [
        struct.pack('>I', len(content)) + name + content + struct.pack('>I', zlib.crc32(name + content))
        for name, content in [(b'IHDR', header), (b'IDAT', zlib.compress(bytes(1000)))]
    ]
    (tmp_path / 'bomb.png').write_bytes(b'\x89PNG\r\n\x1a\n' + b''.join(chunks))
    with pytest.raises(ConfigError, match='bomb.png is too large; the page takes at most 25 megapixels: make'):
        read_upload(str(tmp_path / 'bomb.png'))


def test_large_images_are_reduced_with_a_word():
    assert reduce_to(PIXELS, 30) == (PIXELS, '')
    reduced, changed = reduce_to(np.full((20, 40, 3), 7, np.uint8), 10)
    assert reduced.shape == (5, 10, 3)
    assert (reduced == 7).all()
    assert changed == 'The image was reduced from 40 x 20 to 10 x 5 pixels.'
    assert reduce_to(np.zeros((5000, 1, 3), np.uint8), 10)[0].shape == (10, 1, 3)


def test_the_note_says_the_size_and_what_was_changed(tmp_path):
    for size, words in [
        ((30, 20), 'The image has 30 x 20'),
        ((2666, 4), 'The image was reduced from 2666 x 4 to 1333 x 2'),
    ]:
        Image.new('RGB', size).save(tmp_path / 'a.png')
        assert opened(str(tmp_path / 'a.png'))[1] == f'{words} pixels.'


def test_tensors_have_the_channels_of_the_model():
    assert np.array_equal(shown(to_tensor(PIXELS, 3))[0], PIXELS)
    grey = to_tensor(np.broadcast_to(PIXELS[..., :1], PIXELS.shape), 1)
    assert torch.equal((grey * 255).round().byte()[0, 0], torch.from_numpy(PIXELS[..., 0].copy()))
    with pytest.raises(ConfigError, match='the model has 5 channels'):
        to_tensor(PIXELS, 5)


def test_example_scenes_are_fixed_and_differ():
    assert example_scene(1).shape == (64, 64, 3)
    assert np.array_equal(example_scene(1), example_scene(1))
    assert not np.array_equal(example_scene(1), example_scene(2))
    assert example_scene(0, side=8).shape == (32, 32, 3)
