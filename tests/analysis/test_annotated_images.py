# Copyright (c) addp_mm contributors. Apache-2.0.
"""Boxes, masks and labels are drawn where they are."""

import io

import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as coco_mask

from addp_mm.analysis.annotated_images import Sample, colours, draw, shown_pixels

RED, BLUE = (255, 0, 0), (0, 0, 255)


def png(values):
    buffer = io.BytesIO()
    Image.fromarray(values).save(buffer, 'png')
    return buffer.getvalue()


def sample(**annotations):
    grey = png(np.full((40, 60, 3), 100, np.uint8))
    return Sample('grey.png', lambda: grey, ['cat', 'dog'], [RED, BLUE], **annotations)


def pixels_of(drawn):
    """The drawn image in the size of the stored one: the centre of each enlarged pixel."""
    values = np.asarray(drawn.image.convert('RGB')).astype(int)
    scale = values.shape[0] // 40
    assert values.shape == (40 * scale, 60 * scale, 3)
    return values[scale // 2 :: scale, scale // 2 :: scale]


def changed(drawn):
    return (pixels_of(drawn) != 100).any(2)


def test_a_box_has_the_colour_of_its_class():
    drawn = draw(sample(objects=[(1, [10, 5, 20, 15], None), (0, [40, 30, 4, 4], None), (0, [2, 30, 4, 4], None)]))
    values = np.asarray(drawn.image.convert('RGB'))
    scale = values.shape[0] // 40
    assert values[5 * scale, 20 * scale].tolist() == list(BLUE)
    assert values[30 * scale, 42 * scale].tolist() == list(RED)
    assert values[12 * scale, 20 * scale].tolist() == [100, 100, 100]
    assert drawn.legend == [('2 × cat', RED), ('dog', BLUE)]


@pytest.mark.parametrize('form', ['polygon', 'compressed', 'uncompressed'])
def test_a_mask_is_drawn_at_its_pixels(form):
    mask = np.zeros((40, 60), np.uint8)
    mask[10:20, 15:45] = 1
    if form == 'polygon':
        segmentation = [[15, 10, 45, 10, 45, 20, 15, 20], [0, 0, 1]]
    elif form == 'compressed':
        segmentation = coco_mask.encode(np.asfortranarray(mask))
        segmentation['counts'] = segmentation['counts'].decode()
    else:
        flat = mask.T.ravel()
        runs = np.diff(np.flatnonzero(np.diff(np.r_[1 - flat[0], flat, 1 - flat[-1]])))
        segmentation = dict(size=[40, 60], counts=runs.tolist() if flat[0] == 0 else [0, *runs.tolist()])
    found = changed(draw(sample(objects=[(0, [-50, -50, 1, 1], segmentation)])))
    assert np.abs(found.astype(int) - mask).sum() <= 80 if form == 'polygon' else (found == mask).all()


def test_labels_and_ignored_pixels():
    labels = np.zeros((40, 60), np.uint8)
    labels[:, 30:] = 1
    labels[:10] = 255
    labels[20:22, :2] = 9  # no class
    drawn = draw(sample(labels=lambda: labels))
    values = pixels_of(drawn)
    assert values[30, 10, 0] > values[30, 10, 2]
    assert values[30, 50, 2] > values[30, 50, 0]
    assert len(np.unique(values[5, 5])) == 1
    assert [text for text, _ in drawn.legend] == ['cat', 'dog', 'not among the classes', 'ignored']


def test_a_class_and_an_image_without_annotations():
    assert draw(sample(labels_of_image=[1])).legend == [('dog', BLUE)]
    assert draw(sample(labels_of_image=[1, 0])).legend == [('dog', BLUE), ('cat', RED)]
    assert draw(sample()).legend == []


def test_a_large_image_is_reduced_and_its_boxes_with_it():
    grey = png(np.full((1000, 2000, 3), 100, np.uint8))
    drawn = draw(Sample('large.png', lambda: grey, ['cat'], [RED], objects=[(0, [1000, 500, 900, 400], None)]))
    width, height = drawn.image.size
    assert width == 2 * height < 1000
    red = (np.asarray(drawn.image.convert('RGB')) == RED).all(2)
    rows, columns = np.flatnonzero(red.any(1)), np.flatnonzero(red.any(0))
    assert abs(columns[0] / width - 0.5) < 0.01
    assert abs(columns[-1] / width - 0.95) < 0.01
    assert abs(rows[-1] / height - 0.9) < 0.02


def test_values_without_a_range_are_scaled_to_be_seen():
    buffer = io.BytesIO()
    np.save(buffer, np.linspace(-5, 20, 6 * 4 * 5).reshape(6, 4, 5))
    found = shown_pixels(buffer.getvalue())
    assert found.shape == (6, 4, 3)
    assert (found.min(), found.max()) == (0, 255)
    with pytest.raises(ValueError, match='.'):
        shown_pixels(b'not an image')


def test_colours_differ():
    assert len(set(colours(150))) == 150
