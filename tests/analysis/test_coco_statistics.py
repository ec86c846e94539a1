# Copyright (c) addp_mm contributors. Apache-2.0.
"""Numbers of a COCO file, compared with loops over its records."""

import json
from collections import Counter

import numpy as np
import pytest

from addp_mm.analysis.box_statistics import box_statistics
from addp_mm.analysis.coco_file import read_coco_file


def random_content(num_images=40, num_annotations=300, seed=0):
    generator = np.random.default_rng(seed)
    images = [
        dict(id=7 * index + 3, file_name=f'{index}.jpg', width=int(width), height=int(height))
        for index, (width, height) in enumerate(generator.integers(50, 200, (num_images, 2)))
    ]
    categories = [dict(id=10 * index, name=name) for index, name in enumerate(['cat', 'dog', 'cow', 'pig'])]
    annotations = []
    for index in range(num_annotations):
        box = [float(number) for number in generator.uniform([-3, 0, 0.2, 0.2], [150, 150, 150, 150]).round(2)]
        annotations.append(
            dict(
                id=index,
                image_id=images[int(generator.integers(num_images - 5))]['id'],  # the last five have no objects
                category_id=int(generator.choice([0, 10, 20])),
                bbox=box,
                area=box[2] * box[3] / 2,
                iscrowd=int(generator.random() < 0.1),
                segmentation=dict(size=[100, 100], counts=[10000]) if index % 2 else [[1, 1, 5, 1, 5, 5]],
            )
        )
    return dict(info=dict(year=1), images=images, annotations=annotations, categories=categories)


@pytest.fixture
def content(tmp_path):
    content = random_content()
    (tmp_path / 'a.json').write_text(json.dumps(content))
    return content


def test_numbers_are_those_of_loops_over_the_records(content, tmp_path):
    found = box_statistics(read_coco_file(tmp_path / 'a.json').table)
    objects = [one for one in content['annotations'] if not one['iscrowd']]
    sizes = {image['id']: (image['width'], image['height']) for image in content['images']}
    per_image = Counter(one['image_id'] for one in objects)
    assert found.objects == len(objects)
    assert found.ignored == len(content['annotations']) - len(objects)
    assert found.of_no_class == 0
    by_category = Counter(one['category_id'] for one in objects)
    assert found.by_class == [by_category[key] for key in (0, 10, 20, 30)]
    assert found.by_class[3] == 0
    assert found.images_by_class == [
        len({one['image_id'] for one in objects if one['category_id'] == key}) for key in (0, 10, 20, 30)
    ]
    assert found.empty_images == len(sizes) - len(per_image)
    assert (found.per_image.least, found.per_image.greatest) == (0, max(per_image.values()))
    areas = [one['area'] for one in objects]
    assert found.small == sum(area < 32**2 for area in areas)
    assert found.large == sum(area >= 96**2 for area in areas)
    assert found.small + found.medium + found.large == len(objects)
    outside = degenerate = 0
    for one in objects:
        left, top, width, height = one['bbox']
        limit = sizes[one['image_id']]
        outside += left < -1 or top < -1 or left + width > limit[0] + 1 or top + height > limit[1] + 1
        degenerate += width < 1 or height < 1
    assert (found.outside, found.degenerate) == (outside, degenerate)
    assert outside
    assert degenerate
    assert found.aspect.greatest == max(one['bbox'][2] / one['bbox'][3] for one in objects)


def test_classes_of_the_config_choose_and_order_the_categories(content, tmp_path):
    table = read_coco_file(tmp_path / 'a.json', ['cow', 'cat']).table
    found = box_statistics(table)
    by_category = Counter(one['category_id'] for one in content['annotations'] if not one['iscrowd'])
    assert found.by_class == [by_category[20], by_category[0]]
    assert found.of_no_class == sum(one['category_id'] == 10 for one in content['annotations'])
    assert found.objects == sum(found.by_class)


def test_incomplete_records_are_counted_without_what_they_lack(tmp_path):
    content = dict(
        images=[dict(id='a', file_name='a.png', width=10, height=10), dict(id='b', file_name='b.png')],
        categories=[dict(id='x', name='thing')],
        annotations=[
            dict(image_id='a', category_id='x', bbox=[1, 2, 3, 4]),
            dict(image_id='a', category_id='x'),
            dict(image_id='b', category_id='x', bbox=[0, 0, 900, 1], area='large'),
            dict(image_id='b', category_id='unknown', bbox=[0, 0, 1, 1]),
            dict(image_id='missing', category_id='x', bbox=[0, 0, 2, 2], ignore=1),
        ],
    )
    (tmp_path / 'a.json').write_text(json.dumps(content))
    found = box_statistics(read_coco_file(tmp_path / 'a.json').table)
    assert (found.objects, found.of_no_class, found.ignored) == (3, 1, 1)
    assert (found.width.greatest, found.width.count) == (900, 2)
    assert found.outside == 0  # the size of b is unknown
    assert found.small == 2


def test_a_file_without_annotations(tmp_path):
    (tmp_path / 'a.json').write_text(json.dumps(dict(images=[dict(id=1)], annotations=[], categories=[])))
    found = box_statistics(read_coco_file(tmp_path / 'a.json', num_samples=3).table)
    assert (found.objects, found.empty_images, found.by_class) == (0, 1, [])


@pytest.mark.parametrize('text', ['', '[1, 2]', '{"images": []}', '{"images": ['])
def test_other_files_are_refused(tmp_path, text):
    (tmp_path / 'a.json').write_text(text)
    with pytest.raises(ValueError, match='.'):
        read_coco_file(tmp_path / 'a.json')


@pytest.mark.parametrize('count', [0, 1, 5, 100])
@pytest.mark.parametrize('seed', [0, 1])
def test_samples_are_whole_images(content, tmp_path, count, seed):
    samples = read_coco_file(tmp_path / 'a.json', num_samples=count, seed=seed).samples
    with_objects = {one['image_id'] for one in content['annotations']}
    assert len(samples) == min(count, len(with_objects))
    assert len({image['id'] for image, _ in samples}) == len(samples)
    for image, annotations in samples:
        assert annotations == [one for one in content['annotations'] if one['image_id'] == image['id']]


def test_the_seed_chooses_the_samples(content, tmp_path):
    chosen = [
        {image['id'] for image, _ in read_coco_file(tmp_path / 'a.json', num_samples=5, seed=seed).samples}
        for seed in (0, 0, 1)
    ]
    assert chosen[0] == chosen[1] != chosen[2]
