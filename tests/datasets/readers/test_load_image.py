# Copyright (c) addp_mm contributors. Apache-2.0.
"""Expectations are computed with numpy from the stored values, not by another library."""

import io

import cv2
import numpy as np
import pytest
from PIL import Image

from addp_mm.datasets.readers.load_image import BrokenImageError, LoadImage
from addp_mm.datasets.readers.read_image import read_rgb
from addp_mm.registry import TRANSFORMS


@pytest.fixture
def rng():
    return np.random.default_rng(0)


@pytest.fixture
def rgb(rng):
    return rng.integers(0, 256, size=(5, 7, 3), dtype=np.uint8)


def png(image, **options):
    stream = io.BytesIO()
    image.save(stream, 'PNG', **options)
    return stream.getvalue()


def over_white(colour, alpha):
    alpha = alpha[..., None] / 255
    return colour * alpha + 255 * (1 - alpha)


def test_rgb_gives_bgr_as_mmcv_does(tmp_path, rgb):
    Image.fromarray(rgb).save(tmp_path / 'a.png')
    results = LoadImage()(dict(img_path=str(tmp_path / 'a.png')))
    assert np.array_equal(results['img'], rgb[..., ::-1])
    assert results['img'].flags.c_contiguous
    assert np.array_equal(results['img'], cv2.imread(str(tmp_path / 'a.png')))
    assert results['img'].dtype == np.uint8
    assert results['img_shape'] == results['ori_shape'] == (5, 7)


def test_registered_under_its_scope(tmp_path, rgb):
    Image.fromarray(rgb).save(tmp_path / 'a.png')
    transform = TRANSFORMS.build(dict(type='addp_mm.LoadImage', to_float32=True))
    image = transform(dict(img_path=str(tmp_path / 'a.png')))['img']
    assert image.dtype == np.float32
    assert np.array_equal(image, rgb[..., ::-1])


def test_an_image_in_memory_stays(rgb):
    assert LoadImage()(dict(img=rgb))['img'] is rgb


def test_grey_becomes_three_equal_channels(rgb):
    assert np.array_equal(read_rgb(png(Image.fromarray(rgb[..., 0]))), np.repeat(rgb[..., :1], 3, -1))


def test_black_and_white(rgb):
    bits = rgb[..., 0] > 127
    assert np.array_equal(read_rgb(png(Image.fromarray(bits))), np.repeat(bits[..., None], 3, -1) * 255)


def palette_image(rng):
    indices = rng.integers(0, 4, size=(5, 7), dtype=np.uint8)
    colours = rng.integers(0, 256, size=(4, 3), dtype=np.uint8)
    image = Image.fromarray(indices).convert('L')
    image = Image.frombytes('P', (7, 5), indices.tobytes())
    image.putpalette(colours.ravel().tolist())
    return image, indices, colours


def test_palette_is_looked_up(rng):
    image, indices, colours = palette_image(rng)
    assert np.array_equal(read_rgb(png(image)), colours[indices])


def test_a_palette_s_transparent_colour_becomes_white(rng):
    image, indices, colours = palette_image(rng)
    content = png(image, transparency=2)
    colours[2] = 255
    assert np.array_equal(read_rgb(content), colours[indices])


def test_a_palette_of_half_transparent_colours_is_blended(rng):
    image, indices, colours = palette_image(rng)
    alpha = np.array([0, 80, 200, 255])
    decoded = read_rgb(png(image, transparency=bytes(alpha.tolist())))
    assert np.abs(decoded - over_white(colours[indices], alpha[indices])).max() <= 1


@pytest.mark.parametrize('mode', ['RGBA', 'LA'])
def test_transparency_is_blended_with_white(rng, mode):
    values = rng.integers(0, 256, size=(5, 7, len(mode)), dtype=np.uint8)
    values[0, :, -1], values[1, :, -1] = 0, 255
    decoded = read_rgb(png(Image.fromarray(values, mode)))
    expected = over_white(np.broadcast_to(values[..., :-1], (5, 7, 3)), values[..., -1])
    assert np.abs(decoded - expected).max() <= 1
    assert (decoded[0] == 255).all()
    assert np.array_equal(decoded[1], expected[1])


@pytest.mark.parametrize('subsampling', [0, 2])
@pytest.mark.parametrize('mode', ['RGB', 'L'])
def test_jpeg_pixels_are_those_of_mmcvs_reader(rng, mode, subsampling):
    """The decoders may differ by two levels: a config can change from one reader to the other."""
    coarse = Image.fromarray(rng.integers(0, 256, size=(6, 8, 3), dtype=np.uint8)).resize((53, 37), Image.BICUBIC)
    stream = io.BytesIO()
    coarse.convert(mode).save(stream, 'JPEG', quality=85, subsampling=subsampling)
    decoded = LoadImage()(dict(img_path='photo.jpg', img_bytes=stream.getvalue()))['img']
    expected = cv2.imdecode(np.frombuffer(stream.getvalue(), np.uint8), cv2.IMREAD_COLOR)
    assert decoded.flags['C_CONTIGUOUS']
    assert np.abs(decoded.astype(int) - expected).max() <= 2


@pytest.mark.parametrize('form', ['PNG', 'TIFF'])
def test_16_bit_grey_keeps_its_range(rng, form):
    values = rng.integers(0, 65536, size=(5, 7), dtype=np.uint16)
    values[0, 0], values[0, 1] = 0, 65535
    stream = io.BytesIO()
    Image.fromarray(values).save(stream, form)
    decoded = read_rgb(stream.getvalue())
    assert np.array_equal(decoded, np.repeat(np.rint(values / 65535 * 255)[..., None], 3, -1))


def test_cmyk_is_ink_on_white(rng):
    ink = rng.integers(0, 256, size=(5, 7, 4), dtype=np.uint8)
    stream = io.BytesIO()
    Image.fromarray(ink, 'CMYK').save(stream, 'TIFF')
    expected = (255.0 - ink[..., :3]) * (255 - ink[..., 3:]) / 255
    assert np.abs(read_rgb(stream.getvalue()) - expected).max() <= 1


def test_cmyk_jpeg_is_not_inverted():
    """Adobe's CMYK JPEGs store ink inverted."""
    ink = np.full((16, 16, 4), (0, 200, 100, 50), np.uint8)
    stream = io.BytesIO()
    Image.fromarray(ink, 'CMYK').save(stream, 'JPEG', quality=95)
    expected = (255.0 - ink[..., :3]) * (255 - ink[..., 3:]) / 255
    assert np.abs(read_rgb(stream.getvalue()) - expected).max() <= 4


# Transformation to an upright image, by value of the EXIF tag 0x0112 (EXIF 2.3, 4.6.4).
ORIENTATIONS = {
    1: lambda x: x,
    2: lambda x: x[:, ::-1],
    3: lambda x: x[::-1, ::-1],
    4: lambda x: x[::-1],
    5: lambda x: x.swapaxes(0, 1),
    6: lambda x: np.rot90(x, -1),
    7: lambda x: x[::-1, ::-1].swapaxes(0, 1),
    8: lambda x: np.rot90(x),
}


@pytest.mark.parametrize('orientation', ORIENTATIONS)
def test_exif_orientation_is_applied(rgb, orientation):
    image = Image.fromarray(rgb)
    exif = image.getexif()
    exif[0x0112] = orientation
    assert np.array_equal(read_rgb(png(image, exif=exif)), ORIENTATIONS[orientation](rgb))


def test_exif_rotated_jpeg_is_upright(tmp_path):
    upright = np.zeros((32, 16, 3), np.uint8)
    upright[:16] = 255
    image = Image.fromarray(np.ascontiguousarray(np.rot90(upright)))
    exif = image.getexif()
    exif[0x0112] = 6
    image.save(tmp_path / 'a.jpg', exif=exif, quality=95)
    results = LoadImage()(dict(img_path=str(tmp_path / 'a.jpg')))
    assert results['img_shape'] == (32, 16)
    assert np.abs(results['img'].astype(int) - upright).max() <= 4


@pytest.mark.parametrize('form', ['PNG', 'JPEG', 'BMP', 'TIFF'])
@pytest.mark.parametrize('keep', [0.5, 0.02])
def test_truncated_image_is_an_error_that_names_the_file(tmp_path, rng, form, keep):
    path = tmp_path / f'a.{form.lower()}'
    Image.fromarray(rng.integers(0, 256, size=(64, 64, 3), dtype=np.uint8)).save(path, form)
    path.write_bytes(path.read_bytes()[: int(keep * path.stat().st_size)])
    with pytest.raises(ValueError, match=f'{path}.*cannot be read as an image'):
        LoadImage()(dict(img_path=str(path)))


@pytest.mark.parametrize('content', [b'', b'not an image', b'\x89PNG\r\n\x1a\n' + bytes(30)])
def test_a_file_that_is_not_an_image_is_an_error_that_names_the_file(tmp_path, content):
    path = tmp_path / 'a.png'
    path.write_bytes(content)
    with pytest.raises(ValueError, match=f'{path}.*cannot be read as an image'):
        LoadImage()(dict(img_path=str(path)))


@pytest.mark.parametrize(
    'error', [KeyError('mode'), TypeError(), OverflowError(), ZeroDivisionError(), AttributeError(), MemoryError()]
)
def test_any_error_of_a_plugin_is_an_error_of_the_file(tmp_path, rgb, monkeypatch, error):
    def fail(image):
        raise error

    Image.fromarray(rgb).save(tmp_path / 'a.png')
    monkeypatch.setattr('PIL.PngImagePlugin.PngImageFile.load', fail)
    expected = MemoryError if isinstance(error, MemoryError) else BrokenImageError
    with pytest.raises(expected):
        LoadImage()(dict(img_path=str(tmp_path / 'a.png')))


def test_damaged_pixels_are_an_error(tmp_path, rgb):
    content = bytearray(png(Image.fromarray(rgb)))
    content[content.index(b'IDAT') + 20] ^= 255
    with pytest.raises(ValueError, match='broken|corrupt|damaged|unrecognized|incorrect|data'):
        read_rgb(bytes(content))


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=str(tmp_path / 'a.png')):
        LoadImage()(dict(img_path=str(tmp_path / 'a.png')))


def test_float_images_are_refused():
    stream = io.BytesIO()
    Image.fromarray(np.ones((4, 4), np.float32)).save(stream, 'TIFF')
    with pytest.raises(ValueError, match='no known range'):
        read_rgb(stream.getvalue())


def test_integers_of_32_bits_are_refused():
    stream = io.BytesIO()
    Image.fromarray(np.full((4, 4), 70000, np.int32)).save(stream, 'TIFF')
    with pytest.raises(ValueError, match='int32 values have no known range'):
        read_rgb(stream.getvalue())
