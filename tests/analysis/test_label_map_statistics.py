# Copyright (c) addp_mm contributors. Apache-2.0.
"""Numbers of label maps, compared with mmseg's loader."""

import numpy as np
import pytest
from PIL import Image

from addp_mm.analysis.label_map_statistics import count_labels, label_statistics, seen_labels


def write_maps(folder, count=5, values=(0, 1, 2, 7, 254, 255)):
    generator = np.random.default_rng(0)
    paths, maps = [], []
    for index in range(count):
        labels = generator.choice(values[: 2 + index], (6 + index, 9)).astype(np.uint8)
        image = Image.fromarray(labels)
        if index % 2:
            image = image.convert('P')  # as VOC and ADE20K store them
            image.putpalette(generator.integers(0, 256, 768).astype(np.uint8).tobytes())
            image.putdata(labels.ravel())
        image.save(folder / f'{index}.png')
        paths.append(str(folder / f'{index}.png'))
        maps.append(labels)
    return paths, maps


@pytest.mark.parametrize('num_workers', [0, 1, 3])
def test_pixels_of_each_value(tmp_path, num_workers):
    paths, maps = write_maps(tmp_path)
    counts = count_labels(paths, num_workers)
    for value in range(256):
        assert counts.pixels[value] == sum((one == value).sum() for one in maps)
        assert counts.images[value] == sum((one == value).any() for one in maps)
    assert counts.sizes.tolist() == [[9, 6], [9, 7], [9, 8], [9, 9], [9, 10]]
    assert counts.unreadable == []


@pytest.mark.parametrize('reduce_zero_label', [False, True])
@pytest.mark.parametrize('label_map', [None, {0: 255, 1: 0, 2: 1, 7: 2}])
def test_labels_are_those_of_the_loader_of_mmseg(tmp_path, reduce_zero_label, label_map):
    from mmseg.datasets.transforms import LoadAnnotations

    path = str(tmp_path / 'all.png')
    Image.fromarray(np.arange(256, dtype=np.uint8).reshape(16, 16)).save(path)
    results = dict(seg_map_path=path, reduce_zero_label=reduce_zero_label, label_map=label_map, seg_fields=[])
    loaded = LoadAnnotations()(results)['gt_seg_map'].ravel()
    assert seen_labels(label_map, reduce_zero_label).tolist() == loaded.tolist()


def test_classes_ignored_and_unusual_values(tmp_path):
    paths, maps = write_maps(tmp_path)
    found = label_statistics(count_labels(paths), seen_labels(None, True), ['a', 'b', 'c'], 255)
    stored = np.concatenate([one.ravel() for one in maps])
    assert found.pixels == len(stored)
    assert found.by_class == [(stored == 1).sum(), (stored == 2).sum(), 0]
    assert found.images_by_class[0] == sum((one == 1).any() for one in maps)
    assert found.ignored == np.isin(stored, (0, 255)).sum()
    assert found.unusual == {7: (stored == 7).sum(), 254: (stored == 254).sum()}
    assert found.stored == {value: (stored == value).sum() for value in (0, 1, 2, 7, 254, 255)}
    assert found.meaning == {0: 'ignored', 1: 'a', 2: 'b', 7: 'no class', 254: 'no class', 255: 'ignored'}


def test_maps_that_cannot_be_read_are_named(tmp_path):
    paths, _ = write_maps(tmp_path, 1)
    Image.new('RGB', (4, 4)).save(tmp_path / 'colours.png')
    (tmp_path / 'broken.png').write_bytes(b'x')
    others = [str(tmp_path / name) for name in ('colours.png', 'broken.png', 'missing.png')]
    counts = count_labels([*paths, *others])
    assert counts.unreadable == others
    assert counts.pixels.sum() == 54
    assert np.isnan(counts.sizes[1:]).all()
