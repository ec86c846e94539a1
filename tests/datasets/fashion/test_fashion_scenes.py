# Copyright (c) addp_mm contributors. Apache-2.0.
import numpy as np
import pytest

from addp_mm.datasets.fashion.fashion_mnist import Garments, load_garments
from addp_mm.datasets.fashion.fashion_scenes import SceneGenerator


@pytest.fixture(scope='module')
def generator():
    return SceneGenerator(load_garments('val'), image_size=64, split='val', seed=1)


@pytest.fixture(scope='module')
def scenes(generator):
    return [generator.scene(index) for index in range(60)]


def equal(one, other):
    return np.array_equal(one.image, other.image) and np.array_equal(one.owner, other.owner)


def test_scene_depends_on_seed_split_and_index_alone(generator):
    expected = generator.scene(7)
    np.random.seed(5)  # noqa: NPY002
    generator.scene(2)
    assert equal(generator.scene(7), expected)
    garments = load_garments('val')
    assert equal(SceneGenerator(garments, 64, 'val', seed=1).scene(7), expected)
    for other in (
        SceneGenerator(garments, 64, 'val', seed=2).scene(7),
        generator.scene(8),
        SceneGenerator(garments, 64, 'train', seed=1).scene(7),
        generator.object_image(7),
    ):
        assert not np.array_equal(other.image, expected.image)


def test_no_global_random_state_is_used(generator):
    np.random.seed(5)  # noqa: NPY002
    before = np.random.get_state()[1].copy()  # noqa: NPY002
    generator.scene(3)
    assert np.array_equal(np.random.get_state()[1], before)  # noqa: NPY002


def test_masks_labels_and_label_map_agree(scenes):
    for scene in scenes:
        masks = scene.masks()
        assert masks.sum(0).max() <= 1
        drawn = np.ones(scene.owner.shape, np.uint8)
        for mask, label in zip(masks, scene.labels, strict=True):
            drawn[mask] = 2 + label
        assert np.array_equal(drawn, scene.label_map())


def test_scenes_hold_one_to_five_garments_that_can_be_seen(scenes):
    counts = [len(scene.labels) for scene in scenes]
    assert set(counts) == {1, 2, 3, 4, 5}
    # The smallest garment has 60 of 784 pixels of a photograph of 0.48 x 64 pixels; 45 % of it
    # stays visible.
    smallest = 60 / 784 * (0.48 * 64) ** 2 * 0.45
    assert min(mask.sum() for scene in scenes for mask in scene.masks()) >= smallest


def test_garments_overlap_in_some_scenes(scenes):
    """Masks of two garments touch if one is on the other or next to it."""
    touching = 0
    for scene in scenes:
        left, right = scene.owner[:, :-1], scene.owner[:, 1:]
        touching += bool(((left >= 0) & (right >= 0) & (left != right)).any())
    assert touching >= 10


def test_no_two_garments_of_a_scene_have_the_same_colour(scenes):
    """A colour times shades of grey has a constant direction in RGB, which the median shows."""
    for scene in scenes:
        colours = [np.median(scene.image[mask].astype(float), axis=0) for mask in scene.masks()]
        directions = [colour / np.linalg.norm(colour) for colour in colours]
        for index, one in enumerate(directions):
            assert all(one @ other < 0.995 for other in directions[index + 1 :])


def test_masks_cover_what_was_painted(generator):
    """Pixels of a garment differ from the background; pixels far from any garment do not."""
    for index in range(10):
        scene = generator.object_image(index)
        mask = scene.owner == 0
        ground = scene.image[~mask].astype(float)
        # Light varies by at most 10 % of a value up to 191, plus noise: the background stays near
        # its median.
        distance = np.linalg.norm(scene.image - np.median(ground, axis=0), axis=-1)
        assert np.median(distance[mask]) > 2 * np.median(distance[~mask])


def test_backgrounds_are_smooth(scenes):
    """Neighbouring pixels of the background differ by little noise only."""
    for scene in scenes:
        left, right = scene.owner[:, :-3] < 0, scene.owner[:, 3:] < 0
        bare = left & right & (scene.owner[:, 1:-2] < 0) & (scene.owner[:, 2:-1] < 0)
        change = np.abs(np.diff(scene.image.astype(float), axis=1))[:, 1:-1][bare]
        assert np.median(change) <= 0.03 * 255


def test_object_images_hold_one_garment_of_each_class_in_turn(generator):
    images = [generator.object_image(index) for index in range(20)]
    assert [image.labels.tolist() for image in images] == [[index % 10] for index in range(20)]


@pytest.mark.parametrize('image_size', [32, 64, 100, 224])
def test_any_size_gives_scenes_of_the_same_kind(image_size):
    generator = SceneGenerator(load_garments('val'), image_size, 'val')
    covered = np.mean([(generator.scene(index).owner >= 0).mean() for index in range(30)])
    assert generator.scene(0).image.shape == (image_size, image_size, 3)
    assert 0.15 < covered < 0.4


@pytest.mark.parametrize(
    'options, text', [(dict(image_size=31), 'at least 32'), (dict(split='test'), "'test'"), (dict(seed=-1), 'negative')]
)
def test_bad_options_are_refused(options, text):
    with pytest.raises(ValueError, match=text):
        SceneGenerator(load_garments('val'), **{**dict(image_size=64, split='val'), **options})


def test_a_class_without_garments_is_named():
    garments = load_garments('val')
    keep = garments.labels != 3
    with pytest.raises(ValueError, match='dress'):
        SceneGenerator(Garments(garments.images[keep], garments.labels[keep]), 64, 'val')


def test_a_background_has_no_garment_and_a_random_stream_of_its_own(generator):
    ground = generator.background(7)
    assert len(ground.labels) == 0
    assert (ground.owner == -1).all()
    assert (ground.label_map() == 1).all()
    # light changes a colour by up to 10 %, and cubic interpolation by little more
    colours = ground.image.reshape(-1, 3).astype(float)
    assert np.abs(colours / np.median(colours, axis=0) - 1).max() < 0.25
    assert equal(generator.background(7), ground)
    assert not equal(generator.background(8), ground)
