# Copyright (c) addp_mm contributors. Apache-2.0.
"""Labels of tokens: against the map itself, RoI-align, and images that pass the transforms."""

import math

import numpy as np
import pytest
import torch
from helpers.label_map_files import dense, random_map
from torchvision.ops import roi_align

import addp_mm  # noqa: F401  # before the packages, which need its mmcv._ext
from addp_mm.datasets.token_labels.label_map import LOGIT, LabelMap
from addp_mm.datasets.token_labels.token_labels import token_labels
from addp_mm.datasets.token_labels.view import WHOLE_IMAGE, crop_matrix, flip_matrix, warp_matrix


def aligned(maps: torch.Tensor, crop: tuple, image: tuple, grid: tuple) -> torch.Tensor:
    """torchvision's RoI-align of a crop (top, left, height, width), (C, 1 + cells)."""
    top, left, height, width = crop
    scale_y, scale_x = maps.shape[1] / image[0], maps.shape[2] / image[1]
    box = torch.tensor([[0, left * scale_x, top * scale_y, (left + width) * scale_x, (top + height) * scale_y]])
    return torch.cat([roi_align(maps[None], box, size, aligned=True)[0].flatten(1) for size in ((1, 1), grid)], 1)


def test_the_whole_image_has_the_map_itself():
    label_map = random_map()
    labels = token_labels(label_map, WHOLE_IMAGE, (14, 14), 11)
    assert labels.shape == (11, 197)
    assert labels.dtype == torch.float32
    torch.testing.assert_close(labels[:, 1:].unflatten(1, (14, 14)), dense(label_map, 11))
    torch.testing.assert_close(labels[:, 0], dense(label_map, 11).mean((1, 2)))


@pytest.mark.parametrize('direction, axes', [('horizontal', (2,)), ('vertical', (1,)), ('diagonal', (1, 2))])
def test_a_flip_flips_the_map(direction, axes):
    label_map = random_map()
    labels = token_labels(label_map, flip_matrix(direction), (14, 14), 11)
    torch.testing.assert_close(labels[:, 1:].unflatten(1, (14, 14)), dense(label_map, 11).flip(axes))


def test_half_of_the_image_has_half_of_the_map():
    label_map = random_map()
    view = crop_matrix((0, 112, 224, 112), 224, 224)
    labels = token_labels(label_map, view, (14, 7), 11)
    torch.testing.assert_close(labels[:, 1:].unflatten(1, (14, 7)), dense(label_map, 11)[:, :, 7:])


@pytest.mark.parametrize('size', [(14, 14), (18, 18), (5, 9)])
@pytest.mark.parametrize('crop', [(0, 0, 200, 300), (31, 17, 101, 143), (150, 220, 50, 80), (3, 3, 2, 2)])
def test_crops_equal_roi_align(size, crop):
    label_map = random_map(size=size)
    labels = token_labels(label_map, crop_matrix(crop, 200, 300), (6, 8), 11)
    torch.testing.assert_close(labels, aligned(dense(label_map, 11), crop, (200, 300), (6, 8)), atol=2e-6, rtol=1e-5)
    torch.testing.assert_close(labels.sum(0), torch.ones(49))


def test_logits_are_aligned_before_the_softmax_as_in_the_published_training():
    logits = torch.randn(11, 18, 18, generator=torch.Generator().manual_seed(1)) + 5
    scores, classes = logits.topk(5, 0)
    label_map = LabelMap(scores, classes, LOGIT)
    kept = torch.zeros(11, 18, 18).scatter(0, classes, scores)
    crop = (10, 20, 80, 60)
    labels = token_labels(label_map, crop_matrix(crop, 100, 100), (14, 14), 11)
    torch.testing.assert_close(labels, aligned(kept, crop, (100, 100), (14, 14)).softmax(0), atol=1e-5, rtol=1e-4)


def test_a_constant_map_gives_the_same_label_everywhere():
    label_map = LabelMap(torch.full((2, 7, 7), 0.4), torch.tensor([3, 8]).view(2, 1, 1).expand(2, 7, 7))
    view = crop_matrix((13, 5, 60, 40), 100, 100) @ flip_matrix('horizontal')
    expected = torch.full((11,), 0.2 / 9)
    expected[[3, 8]] = 0.4
    labels = token_labels(label_map, view, (14, 14), 11)
    torch.testing.assert_close(labels, expected[:, None].expand(11, 197))


def test_all_classes_are_kept():
    label_map = random_map(num_classes=3, top_k=3)
    labels = token_labels(label_map, WHOLE_IMAGE, (14, 14), 3)
    expected = torch.zeros(3, 14, 14).scatter(0, label_map.classes, label_map.scores)
    torch.testing.assert_close(labels[:, 1:].unflatten(1, (14, 14)), expected)


def test_tokens_outside_the_image_have_equal_probabilities():
    label_map = random_map()
    shift = warp_matrix(np.array([[1.0, 0, 112], [0, 1, 0]]), 224, 224)  # to the right by a half
    labels = token_labels(label_map, shift, (14, 14), 11)[:, 1:].unflatten(1, (14, 14))
    torch.testing.assert_close(labels[:, :, :7], torch.full((11, 14, 7), 1 / 11))
    torch.testing.assert_close(labels[:, :, 7:], dense(label_map, 11)[:, :, :7])


def position_image(height: int, width: int) -> np.ndarray:
    """An image whose channels are the position x and y of each pixel, and 1."""
    y, x = np.mgrid[:height, :width]
    return np.stack([(x + 0.5) / width, (y + 0.5) / height, np.ones((height, width))], -1).astype(np.float32)


@pytest.mark.parametrize(
    'cfg',
    [
        dict(type='RandomResizedCrop', scale=(96, 128)),
        dict(type='EfficientNetRandomCrop', scale=96),
        dict(type='RandomCrop', crop_size=(96, 128)),
        dict(type='Resize', scale=(128, 96)),
        dict(type='ResizeEdge', scale=128),
        dict(type='RandomFlip', prob=1.0),
        dict(type='RandomFlip', prob=1.0, direction='vertical'),
        dict(type='Rotate', angle=25.0, prob=1.0, pad_val=0, interpolation='bilinear'),
        dict(type='Shear', magnitude=0.2, prob=1.0, pad_val=0, interpolation='bilinear'),
        dict(type='Shear', magnitude=0.2, prob=1.0, pad_val=0, interpolation='bilinear', direction='vertical'),
        dict(type='Translate', magnitude=0.3, prob=1.0, pad_val=0, interpolation='bilinear'),
        dict(type='Translate', magnitude=0.3, prob=1.0, pad_val=0, interpolation='bilinear', direction='vertical'),
    ],
    ids=lambda cfg: f'{cfg["type"]}-{cfg.get("direction", "")}',
)
def test_views_tell_where_each_pixel_comes_from(cfg):
    """An image of positions goes through the transform; its pixels are where the view says."""
    from addp_mm.datasets.token_labels.tracked_transforms import tracked

    np.random.seed(3)  # noqa: NPY002  # transforms use the global generator
    step = in_scope(tracked, cfg)
    for _ in range(4):
        results = step(dict(img=position_image(160, 200), view=WHOLE_IMAGE))
        image = results['img']
        height, width = image.shape[:2]
        points = position_image(height, width).reshape(-1, 3).T
        inside = image[..., 2].reshape(-1) > 0.999  # not mixed with the padding
        assert inside.mean() > 0.3
        found = (results['view'] @ points)[:2, inside]
        expected = image.reshape(-1, 3).T[:2, inside]
        # an image of positions is not linear beyond the centre of its outermost pixels
        assert np.abs(found - expected).max() < 0.75 / 160


def in_scope(function, *args):
    import mmpretrain.datasets  # noqa: F401
    from mmengine.registry import DefaultScope

    with DefaultScope.overwrite_default_scope('mmpretrain'):
        return function(*args)


def test_rand_augment_follows_every_warp():
    from addp_mm.datasets.token_labels.tracked_transforms import tracked

    np.random.seed(0)  # noqa: NPY002
    policies = [
        dict(type='Rotate', magnitude_range=(0, 30)),
        dict(type='Shear', magnitude_range=(0, 0.3), direction='horizontal'),
        dict(type='Translate', magnitude_range=(0, 0.45), direction='vertical'),
    ]
    hparams = dict(pad_val=0, interpolation='bilinear')
    step = in_scope(
        tracked,
        dict(
            type='RandAugment', policies=policies, num_policies=2, magnitude_level=6, magnitude_std=0.5, hparams=hparams
        ),
    )
    changed = 0
    for _ in range(20):
        results = step(dict(img=position_image(100, 100), view=WHOLE_IMAGE))
        points, pixels = position_image(100, 100).reshape(-1, 3).T, results['img'].reshape(-1, 3).T
        inside = pixels[2] > 0.999
        assert np.abs((results['view'] @ points)[:2, inside] - pixels[:2, inside]).max() < 1e-2
        changed += not np.allclose(results['view'], WHOLE_IMAGE)
    assert changed > 8


def test_colours_and_erasing_leave_the_view_alone():
    from addp_mm.datasets.token_labels.tracked_transforms import tracked

    image = np.zeros((32, 32, 3), np.uint8)
    for cfg in (
        dict(type='ColorJitter', brightness=0.4),
        dict(type='RandomErasing', erase_prob=1.0, min_area_ratio=0.1, max_area_ratio=0.3),
        dict(type='Posterize', bits=4, prob=1.0),
    ):
        results = in_scope(tracked, cfg)(dict(img=image, view=WHOLE_IMAGE))
        assert results['view'] is WHOLE_IMAGE


@pytest.mark.parametrize('kind', ['CenterCrop', 'AutoAugment', 'torchvision/RandomRotation'])
def test_transforms_that_cannot_be_followed_are_refused(kind):
    from addp_mm.datasets.errors import DatasetError
    from addp_mm.datasets.token_labels.tracked_transforms import tracked

    with pytest.raises(DatasetError, match='moves pixels, and token labels cannot follow it'):
        in_scope(tracked, dict(type=kind))


def test_padding_of_a_crop_is_refused():
    from addp_mm.datasets.errors import DatasetError
    from addp_mm.datasets.token_labels.tracked_transforms import tracked

    with pytest.raises(DatasetError, match='RandomCrop with padding'):
        in_scope(tracked, dict(type='RandomCrop', crop_size=32, padding=4))


def test_rotation_moves_labels_as_it_moves_pixels():
    """A map whose left half has another class: after 90 degrees clockwise it is the upper half."""
    classes = torch.zeros(1, 8, 8, dtype=torch.long)
    classes[:, :, :4] = 1
    label_map = LabelMap(torch.ones(1, 8, 8), classes)
    angle = math.radians(90)
    cos, sin = round(math.cos(angle)), round(math.sin(angle))
    warp = np.array([[cos, -sin, 7.0], [sin, cos, 0.0]])  # pixel (x, y) goes to (7 - y, x)
    labels = token_labels(label_map, warp_matrix(warp, 8, 8), (8, 8), 2)[1, 1:].unflatten(0, (8, 8))
    torch.testing.assert_close(labels, torch.cat([torch.ones(4, 8), torch.zeros(4, 8)]))
