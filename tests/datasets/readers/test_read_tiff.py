# Copyright (c) addp_mm contributors. Apache-2.0.
"""TIFF files of all common layouts give the values that were stored."""

import io
import re
import struct
import subprocess
import sys
from itertools import product

import cv2
import numpy as np
import pytest
import tifffile

from addp_mm.datasets import BrokenImageError, LoadImage, LoadMultiChannelImage
from addp_mm.datasets.readers.read_image import read_image, read_rgb

# LZW and JPEG within TIFF
pytest.importorskip('imagecodecs')
GREY, RGB = 'minisblack', 'rgb'


def stored_values(bands, dtype, seed=0):
    rng = np.random.default_rng(seed)
    if np.dtype(dtype).kind == 'f':
        return rng.random((9, 11, bands)).astype(dtype)
    return rng.integers(0, np.iinfo(dtype).max + 1, (9, 11, bands)).astype(dtype)


def tiff(values, photometric, planar='contig', extra='unspecified', **options):
    """Bands of shape (H, W, C) as a TIFF."""
    bands = values.shape[2]
    num_extra = bands - (3 if photometric == RGB else 1)
    stream = io.BytesIO()
    tifffile.imwrite(
        stream,
        values[..., 0] if bands == 1 else np.moveaxis(values, 2, 0) if planar == 'separate' else values,
        photometric=photometric,
        planarconfig=planar if bands > 1 else None,
        extrasamples=[extra] + ['unspecified'] * (num_extra - 1) if num_extra else None,
        **options,
    )
    return stream.getvalue()


@pytest.mark.parametrize('planar', ['contig', 'separate'])
@pytest.mark.parametrize('dtype', [np.uint8, np.uint16, np.int16, np.float32])
@pytest.mark.parametrize('bands, photometric', [*product((1, 2, 3, 4, 5), [GREY]), (3, RGB), (4, RGB), (5, RGB)])
def test_values_are_those_stored(bands, photometric, dtype, planar):
    stored = stored_values(bands, dtype)
    extras = ['unspecified', 'unassalpha', 'assocalpha'] if bands in (2, 4) else ['unspecified']
    for extra, compression, options in product(
        extras, [None, 'zlib', 'lzw'], [{}, dict(bigtiff=True), dict(byteorder='>')]
    ):
        image = read_image(tiff(stored, photometric, planar, extra, compression=compression, **options))
        assert image.values.dtype == stored.dtype
        assert np.array_equal(image.values, stored)
        colour = 3 if photometric == RGB else int(bands == 1 or bands == 2 and extra != 'unspecified')
        assert (image.colour, image.alpha) == (colour, bool(colour) and extra != 'unspecified')


@pytest.mark.parametrize('dtype', [np.uint8, np.uint16])
@pytest.mark.parametrize('planar', ['contig', 'separate'])
def test_planes_are_the_image_for_all_loaders(planar, dtype):
    stored = stored_values(3, dtype)
    content, scale = tiff(stored, RGB, planar), np.iinfo(dtype).max / 255
    assert np.abs(read_rgb(content) - stored / scale).max() <= 1
    loaded = LoadMultiChannelImage(3)(dict(img_path='x', img_bytes=content))['img']
    np.testing.assert_allclose(loaded[..., ::-1], stored / scale, rtol=1e-6)


@pytest.mark.parametrize('compression', [None, 'zlib', 'lzw'])
@pytest.mark.parametrize('dtype', [bool, np.uint8, np.uint16])
def test_values_are_inverted_if_white_is_zero(dtype, compression):
    stored = stored_values(1, np.uint8) > 99 if dtype is bool else stored_values(1, dtype)
    content = tiff(stored, 'miniswhite', compression=compression)
    highest = 1 if dtype is bool else np.iinfo(dtype).max
    white = LoadMultiChannelImage(1)(dict(img_path='x', img_bytes=content))['img']
    np.testing.assert_allclose(white, 255 - stored * (255 / highest), rtol=1e-5, atol=1e-4)
    assert np.abs(read_rgb(content) - white).max() <= 0.5 + 1e-3


def test_a_fourth_band_is_alpha_only_if_the_file_marks_it():
    stored = stored_values(4, np.uint8)

    def loaded(extra, channels):
        return LoadMultiChannelImage(channels)(dict(img_path='x', img_bytes=tiff(stored, RGB, extra=extra)))['img']

    assert np.array_equal(loaded('unspecified', 3)[..., ::-1], stored[..., :3])
    opaque = stored[..., 3:] / 255
    assert np.abs(loaded('unassalpha', 3)[..., ::-1] - (stored[..., :3] * opaque + 255 * (1 - opaque))).max() <= 1
    for extra in ('unspecified', 'unassalpha', 'assocalpha'):
        assert np.array_equal(loaded(extra, 4), stored)
    # bands without colour are not mixed
    with pytest.raises(BrokenImageError, match='4 channels found, 3 expected'):
        LoadMultiChannelImage(3)(dict(img_path='x', img_bytes=tiff(stored, GREY)))
    with pytest.raises(BrokenImageError, match='4 channels; load it with addp_mm.LoadMultiChannelImage'):
        LoadImage()(dict(img_path='x', img_bytes=tiff(stored, GREY, 'separate')))


def test_a_missing_codec_is_named(tmp_path):
    """Without imagecodecs, tifffile reads no LZW."""
    plain, packed = (tiff(stored_values(3, np.uint16), RGB, compression=kind) for kind in (None, 'lzw'))
    (tmp_path / 'plain.tif').write_bytes(plain)
    (tmp_path / 'packed.tif').write_bytes(packed)
    code = (
        "import sys; sys.modules['imagecodecs'] = None\n"
        'from addp_mm.datasets.readers.read_image import read_image\n'
        'print(read_image(sys.argv[1]).values.shape)\n'
        'read_image(sys.argv[2])'
    )
    command = [sys.executable, '-c', code, str(tmp_path / 'plain.tif'), str(tmp_path / 'packed.tif')]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.stdout.strip() == '(9, 11, 3)'
    assert re.search(r'ValueError: .* needs the package imagecodecs: pip install "addp_mm\[data\]"', done.stderr)


def test_a_tiff_of_too_many_pixels_is_refused(monkeypatch):
    content = tiff(stored_values(3, np.uint8), RGB)
    monkeypatch.setattr('PIL.Image.MAX_IMAGE_PIXELS', 49)
    with pytest.raises(ValueError, match='cut it into tiles with tools/dataset_converters/image_tiles.py'):
        read_image(content)
    monkeypatch.setattr('PIL.Image.MAX_IMAGE_PIXELS', None)
    assert read_image(content).values.shape == (9, 11, 3)


def test_premultiplied_alpha_is_not_multiplied_again():
    opacity = np.full((9, 11, 1), 51, np.uint8)
    red = np.concatenate([opacity, opacity * 0, opacity * 0, opacity], -1)
    assert (read_rgb(tiff(red, RGB, extra='assocalpha')) == (255, 204, 204)).all()


@pytest.mark.parametrize('bits', [1, 2, 4])
def test_grey_of_few_bits_spans_the_range(bits):
    """An uncompressed TIFF as TIFF 6.0 describes it; a row of 8 pixels takes ``bits`` bytes."""
    stored = np.random.default_rng(0).integers(0, 2**bits, (4, 8))
    digits = (stored[..., None] >> np.arange(bits)[::-1]) & 1
    pixels = np.packbits(digits.reshape(4, -1).astype(bool), axis=1).tobytes()
    entries = {256: 8, 257: 4, 258: bits, 259: 1, 262: 1, 273: 122, 277: 1, 278: 4, 279: len(pixels)}
    table = b''.join(struct.pack('<HHII', tag, 3, 1, value) for tag, value in entries.items())
    content = b'II*\0' + struct.pack('<IH', 8, len(entries)) + table + bytes(4) + pixels
    assert np.array_equal(read_rgb(content)[..., 0], stored * (255 // (2**bits - 1)))


def test_colour_images_are_read_from_the_first_page():
    stored = stored_values(3, np.uint8)
    stream = io.BytesIO()
    with tifffile.TiffWriter(stream) as file:
        for page in (stored, stored[::-1]):
            file.write(page, photometric=RGB)
    assert np.array_equal(read_rgb(stream.getvalue()), stored)
    assert read_image(stream.getvalue()).values.shape == (9, 11, 6)


def test_alpha_of_several_pages_is_not_lost():
    stored = stored_values(4, np.uint8)
    stream = io.BytesIO()
    with tifffile.TiffWriter(stream) as file:
        for _ in range(2):
            file.write(stored, photometric=RGB, extrasamples=['unassalpha'])
    image = read_image(stream.getvalue())
    assert np.array_equal(image.values, np.concatenate([stored] * 2, -1))
    assert image.colour == 0


@pytest.mark.parametrize('planar', ['contig', 'separate'])
@pytest.mark.parametrize('share', [0.001, 0.02, 0.5, 0.98])
def test_damaged_files_are_errors(planar, share):
    content = tiff(stored_values(3, np.uint16).repeat(9, 0), RGB, planar)
    with pytest.raises(ValueError, match='.'):
        read_image(content[: max(5, int(share * len(content)))])


def test_compression_of_opencv_s_own_files():
    stored = stored_values(3, np.uint16)
    for lzw in (1, 5, 32946):
        content = cv2.imencode('.tif', stored[..., ::-1], [cv2.IMWRITE_TIFF_COMPRESSION, lzw])[1].tobytes()
        assert np.array_equal(read_image(content).values, stored)
