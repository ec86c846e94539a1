# Copyright (c) addp_mm contributors. Apache-2.0.
"""Small files that ask for much memory are refused with their name."""

import gzip
import io
import os
import resource
import struct
import subprocess
import sys
import zipfile
import zlib

import numpy as np
import pytest
import tifffile

from addp_mm.checks.coco_reading import read_coco
from addp_mm.datasets.errors import DatasetError
from addp_mm.datasets.fashion.fashion_mnist import load_garments
from addp_mm.datasets.readers.read_image import read_image, upright_size
from addp_mm.errors import UserError
from addp_mm.evaluation import feature_statistics
from addp_mm.extensions import OPENCV_LIMIT
from addp_mm.safe_files import arrays

HUGE = "{'descr': '<f8', 'fortran_order': False, 'shape': (1000000, 1000000), }"


@pytest.fixture(autouse=True)
def _little_memory():
    """2 GiB of address space above what the process has: larger requests fail at once."""
    before = resource.getrlimit(resource.RLIMIT_AS)
    with open('/proc/self/statm') as file:
        used = int(file.read().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + (2 << 30), before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_AS, before)


def npy(header=HUGE, values=b'12345678'):
    text = header.ljust(117) + '\n'
    return b'\x93NUMPY\x01\x00' + struct.pack('<H', len(text)) + text.encode() + values


def test_a_header_of_an_array_that_claims_terabytes(tmp_path):
    (tmp_path / 'x.npy').write_bytes(npy())
    with pytest.raises(ValueError, match=r'states 8000000000000 bytes of float64 \(1000000, 1000000\), but 8 follow'):
        read_image(tmp_path / 'x.npy')
    assert upright_size(tmp_path / 'x.npy') is None
    with zipfile.ZipFile(tmp_path / 'x.npz', 'w') as archive:
        archive.writestr('mu.npy', npy())
        archive.writestr('sigma.npy', npy())
    with pytest.raises(UserError, match=r'x\.npz .*states 8000000000000 bytes'):
        feature_statistics._read(tmp_path / 'x.npz', ['mu'], '')


def test_arrays_of_objects_and_compressed_zeros(tmp_path, monkeypatch):
    np.savez(tmp_path / 'x.npz', mu=np.array([dict()], object), sigma=np.eye(2))
    with pytest.raises(ValueError, match='allow_pickle=False'):
        arrays.read_npz(tmp_path / 'x.npz', ['mu'])
    monkeypatch.setattr(arrays, 'MOST_BYTES', 1 << 20)
    np.savez_compressed(tmp_path / 'y.npz', mu=np.zeros(1 << 20), rest=np.ones(3))
    assert (tmp_path / 'y.npz').stat().st_size < 1 << 15
    with pytest.raises(ValueError, match=r'its arrays have 0\.0 GiB, more than'):
        arrays.read_npz(tmp_path / 'y.npz', ['mu'])
    names, found = arrays.read_npz(tmp_path / 'y.npz', ['rest', 'absent'])
    assert names == ['mu', 'rest']
    assert {name: value.tolist() for name, value in found.items()} == dict(rest=[1, 1, 1])


def test_the_array_that_was_checked_is_read(tmp_path):
    good = io.BytesIO()
    np.save(good, np.eye(2))
    with zipfile.ZipFile(tmp_path / 'x.npz', 'w') as archive:
        archive.writestr('mu', npy())
        archive.writestr('mu.npy', good.getvalue())
    assert np.array_equal(arrays.read_npz(tmp_path / 'x.npz', ['mu'])[1]['mu'], np.eye(2))
    with zipfile.ZipFile(tmp_path / 'y.npz', 'w') as archive:
        archive.writestr('mu.npy', good.getvalue())
        archive.writestr('mu', npy())
    with pytest.raises(ValueError, match='states 8000000000000 bytes'):
        arrays.read_npz(tmp_path / 'y.npz', ['mu'])


def test_a_gzip_bomb_of_idx_files(tmp_path):
    with gzip.open(tmp_path / 'train-images-idx3-ubyte.gz', 'wb', 1) as file:
        for _ in range(300):
            file.write(bytes(1 << 20))
    assert (tmp_path / 'train-images-idx3-ubyte.gz').stat().st_size < 4 << 20
    with pytest.raises(ValueError, match='train-images-idx3-ubyte.gz: not an IDX file .*more than 256 MiB'):
        load_garments('train', str(tmp_path))


def png(width, height):
    parts = [(b'IHDR', struct.pack('>IIBBBBB', width, height, 8, 2, 0, 0, 0)), (b'IDAT', zlib.compress(bytes(1000)))]
    chunks = [
        struct.pack('>I', len(body)) + kind + body + struct.pack('>I', zlib.crc32(kind + body)) for kind, body in parts
    ]
    return b'\x89PNG\r\n\x1a\n' + b''.join(chunks)


def bmp(width, height):
    return (
        b'BM' + struct.pack('<IHHIIiiHHIIiiII', 154, 0, 0, 54, 40, width, height, 1, 24, 0, 0, 0, 0, 0, 0) + bytes(100)
    )


def gif(width, height):
    return b'GIF89a' + struct.pack('<HHBBB', width, height, 0x80, 0, 0) + bytes(6) + b';'


def ppm(width, height):
    return f'P6 {width} {height} 255\n'.encode() + bytes(100)


def hdr(width, height):  # Pillow does not know it, so OpenCV reads it
    return f'#?RADIANCE\nFORMAT=32-bit_rle_rgbe\n\n-Y {height} +X {width}\n'.encode() + bytes(100)


def sun(width, height):
    return struct.pack('>8I', 0x59A66A95, width, height, 24, 1000, 1, 0, 0) + bytes(100)


@pytest.mark.parametrize('make', [png, bmp, gif, ppm, hdr, sun])
def test_an_image_of_gigapixels(make):
    with pytest.raises(ValueError, match=r'megapixels|not an image|cannot|truncated|[Nn]ot|too'):
        read_image(make(60_000, 60_000))


def test_a_tiff_of_many_pages_or_bands_in_few_bytes(tmp_path):
    buffer = io.BytesIO()
    tifffile.imwrite(
        buffer,
        np.zeros((1000, 1000, 40), np.uint8),
        compression='zlib',
        planarconfig='contig',
        photometric='minisblack',
    )
    assert len(buffer.getvalue()) < 200_000
    with pytest.raises(ValueError, match='more than 1 megapixels'):
        read_image(buffer.getvalue(), max_pixels=10**6)
    assert read_image(buffer.getvalue()).num_channels == 40
    pages = io.BytesIO()
    with tifffile.TiffWriter(pages) as file:
        for _ in range(40):
            file.write(np.zeros((100, 100), np.uint8), compression='zlib')
    with pytest.raises(ValueError, match='megapixels'):
        read_image(pages.getvalue(), max_pixels=10**4)


def test_opencv_has_the_limit_of_pillow():
    code = f'import addp_mm, os; print(os.environ[{OPENCV_LIMIT!r}])'
    environment = {key: value for key, value in os.environ.items() if key != OPENCV_LIMIT}
    for given, expected in (({}, '178956970'), ({OPENCV_LIMIT: '5'}, '5')):
        done = subprocess.run([sys.executable, '-c', code], env=environment | given, capture_output=True, text=True)
        assert done.stdout.strip() == expected


def test_nested_annotations(tmp_path):
    (tmp_path / 'x.json').write_text('{"images": ' + '[' * 200_000)
    with pytest.raises(DatasetError, match=r'x\.json: nested too deeply'):
        read_coco(tmp_path / 'x.json', True)


def test_entities_of_voc_annotations_do_not_expand_or_read_files(tmp_path):
    """Python's parser limits their expansion, and reads no other file."""
    from xml.etree import ElementTree

    laughs = ''.join(f'<!ENTITY a{n} "{f"&a{n - 1};" * 10}">' for n in range(1, 10))
    bomb = f'<!DOCTYPE x [<!ENTITY a0 "ha">{laughs}]><annotation><size>&a9;</size></annotation>'
    other = '<!DOCTYPE x [<!ENTITY f SYSTEM "file:///etc/passwd">]><annotation>&f;</annotation>'
    for text, words in ((bomb, 'amplification'), (other, 'undefined entity')):
        with pytest.raises(ElementTree.ParseError, match=words):
            ElementTree.fromstring(text)
