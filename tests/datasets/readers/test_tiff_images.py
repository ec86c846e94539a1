# Copyright (c) addp_mm contributors. Apache-2.0.
"""TIFF files of all common layouts give the values that were stored, whichever library reads them."""

import io
from itertools import product

import cv2
import numpy as np
import pytest

from addp_mm.datasets import BrokenImageError, LoadImage, LoadMultiChannelImage
from addp_mm.datasets.readers.load_image import decode_image
from addp_mm.datasets.readers.read_channels import read_channels

tifffile = pytest.importorskip('tifffile')
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
        image = read_channels(tiff(stored, photometric, planar, extra, compression=compression, **options))
        assert image.values.dtype == stored.dtype
        assert np.array_equal(image.values, stored)
        colour = 3 if photometric == RGB else int(bands == 1 or bands == 2 and extra != 'unspecified')
        assert (image.colour, image.alpha) == (colour, bool(colour) and extra != 'unspecified')


@pytest.mark.parametrize('dtype', [np.uint8, np.uint16])
@pytest.mark.parametrize('planar', ['contig', 'separate'])
def test_planes_are_the_picture_for_all_loaders(planar, dtype):
    stored = stored_values(3, dtype)
    content, scale = tiff(stored, RGB, planar), np.iinfo(dtype).max / 255
    assert np.abs(decode_image(content) - stored / scale).max() <= 1
    loaded = LoadMultiChannelImage(3)(dict(img_path='x', img_bytes=content))['img']
    np.testing.assert_allclose(loaded[..., ::-1], stored / scale, rtol=1e-6)


@pytest.mark.parametrize('compression', [None, 'zlib', 'lzw'])
@pytest.mark.parametrize('dtype', [bool, np.uint8, np.uint16])
def test_where_white_is_zero_values_are_turned_round(dtype, compression):
    stored = stored_values(1, np.uint8) > 99 if dtype is bool else stored_values(1, dtype)
    content = tiff(stored, 'miniswhite', compression=compression)
    highest = 1 if dtype is bool else np.iinfo(dtype).max
    white = LoadMultiChannelImage(1)(dict(img_path='x', img_bytes=content))['img']
    np.testing.assert_allclose(white, 255 - stored * (255 / highest), rtol=1e-5, atol=1e-4)
    assert np.abs(decode_image(content) - white).max() <= 0.5 + 1e-3


def test_a_fourth_band_is_alpha_only_where_the_file_says_so():
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


@pytest.mark.parametrize('dtype', [np.uint16, np.float32])
def test_bands_stored_apart_say_what_to_install(dtype, monkeypatch):
    def no_tifffile(name):
        raise ImportError(name)

    monkeypatch.setattr('addp_mm.datasets.readers.tiff_images.import_module', no_tifffile)
    content = tiff(stored_values(3, dtype), RGB, 'separate')
    with pytest.raises(ValueError, match=r'3 bands stored one after the other, of (16|32) bits.*addp_mm\[data\]'):
        read_channels(content)
    # what Pillow and OpenCV read right needs nothing else
    for bands, kind, extra in ((3, RGB, 'unspecified'), (4, RGB, 'unassalpha'), (2, GREY, 'unassalpha')):
        stored = stored_values(bands, np.uint8)
        assert np.array_equal(read_channels(tiff(stored, kind, extra=extra)).values, stored)


def test_alpha_of_several_pages_is_not_lost():
    stored = stored_values(4, np.uint8)
    stream = io.BytesIO()
    with tifffile.TiffWriter(stream) as file:
        for _ in range(2):
            file.write(stored, photometric=RGB, extrasamples=['unassalpha'])
    image = read_channels(stream.getvalue())
    assert np.array_equal(image.values, np.concatenate([stored] * 2, -1))
    assert image.colour == 0


@pytest.mark.parametrize('planar', ['contig', 'separate'])
@pytest.mark.parametrize('share', [0.001, 0.02, 0.5, 0.98])
def test_damaged_files_are_errors(planar, share):
    content = tiff(stored_values(3, np.uint16).repeat(9, 0), RGB, planar)
    with pytest.raises(ValueError):
        read_channels(content[: max(5, int(share * len(content)))])


def test_compression_of_opencv_s_own_files():
    stored = stored_values(3, np.uint16)
    for lzw in (1, 5, 32946):
        content = cv2.imencode('.tif', stored[..., ::-1], [cv2.IMWRITE_TIFF_COMPRESSION, lzw])[1].tobytes()
        assert np.array_equal(read_channels(content).values, stored)
