# Copyright (c) addp_mm contributors. Apache-2.0.
"""Expectations are the values that were stored."""

import io
import struct
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.dataset import default_collate
from mmengine.registry import DefaultScope
from PIL import Image

from addp_mm.compat import install
from addp_mm.config.shipped import config_path
from addp_mm.datasets import BrokenImageError, ImageFiles, LoadMultiChannelImage
from addp_mm.datasets.readers.read_image import read_rgb
from addp_mm.registry import MODELS, TRANSFORMS


@pytest.fixture
def rng():
    return np.random.default_rng(0)


def values(rng, channels, dtype=np.uint8, size=(5, 7)):
    return rng.integers(0, np.iinfo(dtype).max + 1, (*size, channels)).astype(dtype)


def encoded(image, form, **options):
    stream = io.BytesIO()
    image.save(stream, form, **options)
    return stream.getvalue()


def load(content, channels, **options):
    return LoadMultiChannelImage(channels, **options)(dict(img_path='there', img_bytes=content))


def npy(array):
    stream = io.BytesIO()
    np.save(stream, array)
    return stream.getvalue()


def tiff(array, orientation=1):
    """An uncompressed TIFF with any number of bands, as TIFF 6.0 describes it."""
    height, width, bands = array.shape
    bits = 8 * array.dtype.itemsize
    # tag, type (3: 16 bits, 4: 32 bits), values
    entries = [
        (256, 4, [width]),
        (257, 4, [height]),
        (258, 3, [bits] * bands),
        (259, 3, [1]),
        (262, 3, [1]),
        (273, 4, [0]),
        (274, 3, [orientation]),
        (277, 3, [bands]),
        (278, 4, [height]),
        (279, 4, [array.nbytes]),
        (284, 3, [1]),
        (338, 3, [0] * (bands - 1)),
    ]
    extra, start = b'', 8 + 2 + 12 * len(entries) + 4
    pixels = start + sum(len(found) * 2 for _, kind, found in entries if kind == 3 and len(found) > 2)
    table = b''
    for tag, kind, found in entries:
        packed = struct.pack(f'<{len(found)}{"H" if kind == 3 else "I"}', *([pixels] if tag == 273 else found))
        if len(packed) > 4:
            packed, extra = struct.pack('<I', start + len(extra)), extra + packed
        table += struct.pack('<HHI', tag, kind, len(found)) + packed.ljust(4, b'\0')
    head = b'II*\0' + struct.pack('<IH', 8, len(entries)) + table + bytes(4)
    return head + extra + array.astype(array.dtype.newbyteorder('<')).tobytes()


@pytest.mark.parametrize('dtype', [np.uint8, np.uint16])
@pytest.mark.parametrize('channels', [1, 2, 3, 5, 16])
def test_arrays(rng, channels, dtype):
    stored = values(rng, channels, dtype)
    results = load(npy(stored if channels > 1 else stored[..., 0]), channels)
    scale = 255 / np.iinfo(dtype).max
    expected = stored[..., ::-1] if channels == 3 else stored
    np.testing.assert_allclose(results['img'], expected * scale, rtol=1e-6)
    assert results['img'].dtype == np.float32
    assert results['img_shape'] == results['ori_shape'] == (5, 7)
    assert 'img_bytes' not in results


@pytest.mark.parametrize('dtype', [np.uint8, np.uint16])
@pytest.mark.parametrize('channels', [1, 3, 5, 16])
def test_pages_of_a_tiff_are_channels(rng, channels, dtype):
    stored = values(rng, channels, dtype)
    done, content = cv2.imencodemulti('.tif', [stored[..., k] for k in range(channels)])
    assert done
    image = load(content.tobytes(), channels)['img']
    expected = stored[..., ::-1] if channels == 3 else stored
    np.testing.assert_allclose(image, expected * (255 / np.iinfo(dtype).max), rtol=1e-6)


def test_thumbnails_among_the_pages_are_left_out(rng):
    pages = [values(rng, 1)[..., 0], values(rng, 1, size=(2, 3))[..., 0], values(rng, 1)[..., 0]]
    content = cv2.imencodemulti('.tif', pages)[1].tobytes()
    assert np.array_equal(load(content, 2)['img'], np.stack([pages[0], pages[2]], -1))


@pytest.mark.parametrize('channels', [2, 4, 5, 16])
def test_bands_of_a_tiff_are_channels(rng, channels):
    stored = values(rng, channels, np.uint16)
    np.testing.assert_allclose(load(tiff(stored), channels)['img'], stored / 257, rtol=1e-6)
    rotated = load(tiff(stored, orientation=6), channels)['img']
    np.testing.assert_allclose(rotated, np.rot90(stored, -1) / 257, rtol=1e-6)


@pytest.mark.parametrize('form', ['PNG', 'TIFF'])
def test_16_bits_keep_their_steps(rng, form):
    grey = values(rng, 1, np.uint16)
    np.testing.assert_allclose(load(encoded(Image.fromarray(grey[..., 0]), form), 1)['img'], grey / 257, rtol=1e-6)
    colour = values(rng, 3, np.uint16)
    content = cv2.imencode('.png' if form == 'PNG' else '.tif', colour)[1].tobytes()
    np.testing.assert_allclose(load(content, 3)['img'], colour / 257, rtol=1e-6)


@pytest.mark.parametrize('highest', [255, 1023, 65535])
@pytest.mark.parametrize('channels', [1, 3])
def test_pgm_and_ppm_of_any_depth_span_the_range(rng, channels, highest):
    stored = rng.integers(0, highest + 1, (5, 7, channels))
    pixels = stored.astype(np.uint8 if highest < 256 else '>u2').tobytes()
    content = f'P{5 if channels == 1 else 6} # a comment\n7 5\n{highest}\n'.encode() + pixels
    # rounded to 16 bits, not to eight
    np.testing.assert_allclose(load(content, channels)['img'][..., ::-1], stored * (255 / highest), atol=2e-3)


@pytest.mark.parametrize('channels', [1, 3, 4])
def test_jpeg_2000_keeps_16_bits(rng, channels):
    stored = values(rng, channels, np.uint16, (40, 50))
    lossless = [cv2.IMWRITE_JPEG2000_COMPRESSION_X1000, 1000]
    content = cv2.imencode('.jp2', stored, lossless)[1].tobytes()
    expected = stored if channels != 4 else stored[..., [2, 1, 0, 3]]
    np.testing.assert_allclose(load(content, channels)['img'], expected / 257, rtol=1e-6)


def test_no_image_is_decoded_twice(rng, monkeypatch):
    """OpenCV decodes colours of 16 bits: Pillow must not decode them before."""
    colour = values(rng, 3, np.uint16)
    content = cv2.imencode('.png', colour)[1].tobytes()
    monkeypatch.setattr('PIL.ImageFile.ImageFile.load', None)
    np.testing.assert_allclose(load(content, 3)['img'], colour / 257, rtol=1e-6)
    assert np.array_equal(read_rgb(content)[..., ::-1], np.rint(colour / 257))


@pytest.mark.parametrize('order', '<>')
def test_arrays_of_either_order_of_bytes(rng, order):
    stored = values(rng, 5, np.uint16)
    np.testing.assert_allclose(load(npy(stored.astype(f'{order}u2')), 5)['img'], stored / 257, rtol=1e-6)


def test_16_bit_colour_is_rounded_for_three_channels_of_eight_bits(rng):
    colour = values(rng, 3, np.uint16)
    for end in ('.png', '.tif'):
        decoded = read_rgb(cv2.imencode(end, colour)[1].tobytes())
        assert np.array_equal(decoded[..., ::-1], np.rint(colour / 257))


def test_channels_are_in_the_file_s_order_but_three_in_reverse(rng):
    rgba = values(rng, 4)
    assert np.array_equal(load(encoded(Image.fromarray(rgba), 'PNG'), 4)['img'], rgba)
    assert np.array_equal(load(encoded(Image.fromarray(rgba[..., :3]), 'PNG'), 3)['img'], rgba[..., 2::-1])
    assert np.array_equal(load(encoded(Image.fromarray(rgba[..., :3]), 'TIFF'), 3)['img'], rgba[..., 2::-1])


def test_other_modes_become_grey_or_colour(rng):
    rgb = values(rng, 3)
    grey = np.repeat(rgb[..., :1], 3, -1)
    assert np.array_equal(load(encoded(Image.fromarray(grey), 'PNG'), 1)['img'], rgb[..., :1])
    luminance = rgb @ [0.299, 0.587, 0.114]
    assert np.abs(load(encoded(Image.fromarray(rgb), 'PNG'), 1)['img'][..., 0] - luminance).max() <= 0.5 + 1e-4
    assert np.array_equal(load(encoded(Image.fromarray(rgb[..., 0]), 'PNG'), 3)['img'], grey)
    palette = Image.fromarray(rgb).quantize(8)
    for form in ('PNG', 'TIFF', 'GIF'):
        assert np.array_equal(load(encoded(palette, form), 3)['img'], np.asarray(palette.convert('RGB'))[..., ::-1])
    clear = Image.fromarray(np.dstack([rgb, np.zeros((5, 7), np.uint8)]))
    assert (load(encoded(clear, 'PNG'), 3)['img'] == 255).all()
    assert (load(encoded(clear, 'PNG'), 1)['img'] == 255).all()
    bits = rgb[..., 0] > 127
    assert np.array_equal(load(encoded(Image.fromarray(bits), 'PNG'), 1)['img'][..., 0], bits * 255)


@pytest.mark.parametrize('bits', [8, 16])
@pytest.mark.parametrize('orientation', [1, 3, 6])
def test_orientation_is_applied(rng, orientation, bits):
    colour = values(rng, 3, np.uint8)
    exif = Image.Exif()
    exif[0x0112] = orientation
    content = encoded(Image.fromarray(colour), 'PNG', exif=exif)
    if bits == 16:
        wide = cv2.imencode('.png', colour[..., ::-1].astype(np.uint16) * 257)[1].tobytes()
        chunk = content[content.index(b'eXIf') - 4 :]
        chunk = chunk[: 12 + int.from_bytes(chunk[:4], 'big')]
        content = wide[:33] + chunk + wide[33:]
    expected = {1: colour, 3: colour[::-1, ::-1], 6: np.rot90(colour, -1)}[orientation]
    assert np.array_equal(np.rint(load(content, 3)['img'])[..., ::-1], expected)


def test_value_range(rng):
    stored = np.array([[0, 4095, 5000]], np.uint16)
    assert np.allclose(load(npy(stored), 1, value_range=(0, 4095))['img'][0, :, 0], [0, 255, 255])
    floats = np.array([[-1.0, 0.0, 1.0]], np.float32)
    assert np.allclose(load(npy(floats), 1, value_range=(-1, 1))['img'][0, :, 0], [0, 127.5, 255])
    with pytest.raises(BrokenImageError, match='there.*float32 values have no known range: set value_range'):
        load(npy(floats), 1)
    with pytest.raises(BrokenImageError, match='not finite'):
        load(npy(floats * np.nan), 1, value_range=(0, 1))
    eight = load(npy(np.array([[0, 128, 65535]], np.uint16)), 1, to_float32=False)['img']
    assert eight.dtype == np.uint8
    assert eight.ravel().tolist() == [0, 0, 255]
    with pytest.raises(ValueError, match='lower, upper'):
        LoadMultiChannelImage(1, value_range=(3, 3))
    with pytest.raises(ValueError, match='1 to 16'):
        LoadMultiChannelImage(17)


def test_another_number_of_channels_is_an_error_that_names_file_and_numbers(rng, tmp_path):
    np.save(tmp_path / 'a.npy', values(rng, 4))
    with pytest.raises(BrokenImageError, match=r'a\.npy: .*4 channels found, 5 expected, where an array .*H, W, C'):
        LoadMultiChannelImage(5)(dict(img_path=str(tmp_path / 'a.npy')))
    # pages and arrays are not colours, so they are not mixed
    with pytest.raises(BrokenImageError, match='4 channels found, 1 expected'):
        load(npy(values(rng, 4)), 1)
    with pytest.raises(BrokenImageError, match='3 channels found, 4 expected'):
        load(encoded(Image.fromarray(values(rng, 3)), 'PNG'), 4)


def test_damaged_files_are_errors_that_name_them(rng):
    whole = [
        npy(values(rng, 5)),
        cv2.imencodemulti('.tif', [values(rng, 1, size=(64, 64))[..., 0]] * 5)[1].tobytes(),
        encoded(Image.fromarray(values(rng, 1, size=(64, 64))[..., 0]), 'PNG'),
        tiff(values(rng, 5)),
        npy(np.array([{}], object)),
    ]
    for content in [*(content[: len(content) // 2] for content in whole), b'', b'II*\0', whole[-1]]:
        # a truncated TIFF may still have its first pages
        with pytest.raises(BrokenImageError, match='there: cannot be read'):
            load(content, 5)


@pytest.mark.parametrize('channels', [1, 3, 5, 16])
def test_batches_of_the_shipped_config_are_images_between_0_and_1(rng, tmp_path, channels):
    install()
    for index in range(3):
        np.save(tmp_path / f'{index}.npy', values(rng, channels, [np.uint8, np.uint16][index % 2], (70, 90)))
    shipped = Path(config_path('_base_/datasets/own_images_multi_channel.py'))
    text = shipped.read_text().replace("'own_images.py'", repr(str(shipped.with_name('own_images.py'))))
    (tmp_path / 'config.py').write_text(text.replace('channels = 5', f'channels = {channels}'))
    cfg = Config.fromfile(tmp_path / 'config.py')
    data = dict(cfg.train_dataloader.dataset, root=str(tmp_path), index_file=tmp_path / 'list', split=None)
    assert data.pop('type') == 'addp_mm.ImageFiles'
    with DefaultScope.overwrite_default_scope('mmpretrain'):
        images, preprocessor = ImageFiles(**data), MODELS.build(cfg.data_preprocessor)
    batch = preprocessor(default_collate([images[k] for k in range(3)]), True)['inputs']
    assert batch.shape == (3, channels, 128, 128)
    assert batch.dtype == torch.float32
    assert batch.min() >= 0
    assert batch.max() <= 1
    assert batch.std() > 0.05


def test_registered(rng):
    transform = TRANSFORMS.build(dict(type='addp_mm.LoadMultiChannelImage', channels=5, backend_args=None))
    assert transform(dict(img_path='x', img_bytes=npy(values(rng, 5))))['img'].shape == (5, 7, 5)
