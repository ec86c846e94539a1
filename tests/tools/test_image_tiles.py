# Copyright (c) addp_mm contributors. Apache-2.0.
"""Large images cut into tiles."""

import image_tiles
import numpy as np
import pytest
from PIL import Image


@pytest.fixture(autouse=True)
def limit(monkeypatch):
    """The tool removes Pillow's limit in its process; each test restores it."""
    monkeypatch.setattr('PIL.Image.MAX_IMAGE_PIXELS', Image.MAX_IMAGE_PIXELS)


@pytest.fixture
def image(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (50, 70, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / 'field.png')
    return pixels


def test_tiles_are_the_image_side_by_side(image, tmp_path):
    image_tiles.main([str(tmp_path / 'field.png'), '--out', str(tmp_path / 'tiles'), '--tile', '20'])
    found = sorted((tmp_path / 'tiles').glob('*.png'))
    assert len(found) == 2 * 3
    assert (np.array(Image.open(tmp_path / 'tiles/field_0020_0040.png')) == image[20:40, 40:60]).all()


def test_images_are_resized_first_and_chosen_by_name(image, tmp_path):
    for name in ('field2.png', 'drawn.png'):
        Image.fromarray(image).save(tmp_path / name)
    (tmp_path / 'link.png').symlink_to(tmp_path / 'field.png')
    paths = [str(path) for path in tmp_path.glob('*.png')]
    image_tiles.main(
        [
            *paths,
            '--out',
            str(tmp_path / 'tiles'),
            '--tile',
            '100',
            '--shorter-side',
            '100',
            '--leave-out',
            'drawn*',
            '--only',
            '*.png',
        ]
    )
    assert sorted(path.name for path in (tmp_path / 'tiles').glob('*.png')) == [
        'field2_0000_0000.png',
        'field_0000_0000.png',
    ]
    assert Image.open(tmp_path / 'tiles/field_0000_0000.png').size == (100, 100)


def test_images_too_large_for_training_are_cut(image, tmp_path, monkeypatch):
    from addp_mm.datasets import BrokenImageError, LoadImage

    # 3,500 pixels instead of more than 179 million
    monkeypatch.setattr('PIL.Image.MAX_IMAGE_PIXELS', 1500)
    with pytest.raises(BrokenImageError, match='cut it into tiles with tools/dataset_converters/image_tiles.py'):
        LoadImage()(dict(img_path=str(tmp_path / 'field.png')))
    image_tiles.main([str(tmp_path / 'field.png'), '--out', str(tmp_path / 'tiles'), '--tile', '20'])
    assert len(list((tmp_path / 'tiles').glob('*.png'))) == 2 * 3


def test_16_bits_are_scaled_not_clipped(tmp_path):
    pixels = np.arange(400, dtype=np.uint16).reshape(20, 20) * 160
    Image.fromarray(pixels).save(tmp_path / 'deep.png')
    image_tiles.main([str(tmp_path / 'deep.png'), '--out', str(tmp_path / 'tiles'), '--tile', '20'])
    tile = np.array(Image.open(tmp_path / 'tiles/deep_0000_0000.png'))
    assert np.abs(tile[..., 0] - pixels / 257).max() <= 0.5
    assert (tile[..., :1] == tile).all()


def test_files_that_cannot_be_cut_are_named(image, tmp_path):
    (tmp_path / 'broken.png').write_bytes(b'no image')
    with pytest.raises(SystemExit, match=r'broken.png: .*--leave-out'):
        image_tiles.main([str(tmp_path / 'broken.png'), '--out', str(tmp_path / 'tiles')])
    with pytest.raises(SystemExit, match='none of 1 paths'):
        image_tiles.main([str(tmp_path / 'field.png'), '--out', str(tmp_path / 'tiles'), '--leave-out', 'field*'])
    with pytest.raises(SystemExit, match=r'error: \S+nothing.png does not exist'):
        image_tiles.main([str(tmp_path / 'field.png'), str(tmp_path / 'nothing.png'), '--out', str(tmp_path / 't')])
    (tmp_path / 'other').mkdir()
    Image.fromarray(image).save(tmp_path / 'other/field.png')
    with pytest.raises(SystemExit, match='the same name'):
        image_tiles.main([str(tmp_path / 'field.png'), str(tmp_path / 'other/field.png'), '--out', str(tmp_path / 't')])


def test_images_smaller_than_a_tile_are_named(image, tmp_path, capsys):
    Image.fromarray(image[:15, :15]).save(tmp_path / 'small.png')
    with pytest.raises(SystemExit, match=r'small\.png \(15 x 15\): smaller than a tile of 20 px'):
        image_tiles.main([str(tmp_path / 'small.png'), '--out', str(tmp_path / 'tiles'), '--tile', '20'])
    # a folder without tiles can be used with other settings
    image_tiles.main(
        [str(tmp_path / 'small.png'), str(tmp_path / 'field.png'), '--out', str(tmp_path / 'tiles'), '--tile', '16']
    )
    assert f'12 tiles of 1 images; smaller than a tile, and skipped: {tmp_path / "small.png"}' in (
        capsys.readouterr().out
    )


def test_a_folder_holds_tiles_of_one_kind(image, tmp_path):
    def cut(*options, out='tiles'):
        image_tiles.main([str(tmp_path / 'field.png'), '--out', str(tmp_path / out), '--tile', *options])

    cut('20')
    before = {path.name: path.read_bytes() for path in (tmp_path / 'tiles').iterdir()}
    cut('20')
    with pytest.raises(SystemExit, match='images of other settings .*tile 20 -> 25'):
        cut('25')
    with pytest.raises(SystemExit, match='other settings'):
        cut('20', '--shorter-side', '100')
    assert {path.name: path.read_bytes() for path in (tmp_path / 'tiles').iterdir()} == before
    (tmp_path / 'mine').mkdir()
    (tmp_path / 'mine/thesis.txt').touch()
    with pytest.raises(SystemExit, match=r'mine contains files but .*tiles\.json is missing'):
        cut('20', out='mine')
    with pytest.raises(SystemExit, match=r'--out \S+field.png: no file can be written'):
        cut('20', out='field.png')


def test_a_tile_whose_writing_failed_does_not_exist(image, tmp_path, monkeypatch):
    def save(tile, path, format):
        path.write_bytes(b'half')
        raise OSError('no space left')

    monkeypatch.setattr('PIL.Image.Image.save', save)
    with pytest.raises(SystemExit, match='no space left'):
        image_tiles.main([str(tmp_path / 'field.png'), '--out', str(tmp_path / 'tiles'), '--tile', '20'])
    assert not list((tmp_path / 'tiles').glob('*.png'))
