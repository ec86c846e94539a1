# Copyright (c) addp_mm contributors. Apache-2.0.
"""The shares of empty scenes and of scenes with a garment that can be named."""

import json

import numpy as np
import pytest
import torch
from garment_classifier import Recipe, changed, garment_probabilities, scene_targets, train, trained_classifier
from helpers.image_sets import write_folder
from helpers.scene_fixtures import few_garments
from scene_quality import Share, backgrounds, main, measure, quality_of, scored
from warped_scenes import warped

from addp_mm.datasets.fashion.fashion_mnist import CLASSES, load_garments
from addp_mm.datasets.fashion.fashion_scenes import SceneGenerator
from addp_mm.errors import UserError
from addp_mm.evaluation.scene_content import COLOUR_DISTANCE, is_empty, object_share

FAST = Recipe(epochs=1, batch_size=8)


def constant_classifier(logits):
    """A network that gives the same logits for each image."""
    network = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.LazyLinear(len(CLASSES)))
    network(torch.zeros(1, 3, 64, 64))
    torch.nn.init.zeros_(network[1].weight)
    network[1].bias.data = torch.tensor(logits)
    return network


def scene_with_a_square(share, levels):
    """A grey image of 50 px in which ``share`` of the pixels are brighter by ``levels`` in red."""
    image = np.full((50 * 50, 3), 100, np.uint8)
    image[: round(share * 2500), 0] += levels
    return image.reshape(1, 50, 50, 3)


def test_a_scene_is_empty_up_to_2_percent_of_pixels_beyond_50_levels():
    assert object_share(scene_with_a_square(0.3, 51)) == pytest.approx(0.3)
    assert object_share(scene_with_a_square(0.3, 50)) == 0
    assert is_empty(scene_with_a_square(0.02, 51)).tolist() == [True]
    assert is_empty(scene_with_a_square(0.0204, 51)).tolist() == [False]
    # a garment may be larger than the background: the rest then differs from the median
    assert object_share(scene_with_a_square(0.9, 51)) == pytest.approx(0.1)


def test_backgrounds_are_empty_and_scenes_are_not():
    generator = SceneGenerator(few_garments('val', 10), 64, 'val', seed=5)
    assert is_empty(np.concatenate([*backgrounds(64, 40)])).all()
    assert not is_empty(np.stack([generator.scene(index).image for index in range(40)])).any()


def test_wilson_interval():
    """Against the closed form of Wilson's interval."""
    n, p, z = 200, 30 / 200, 1.959963984540054
    centre, half = p + z * z / (2 * n), z * (p * (1 - p) / n + z * z / (4 * n * n)) ** 0.5
    expected = [(centre - half) / (1 + z * z / n), (centre + half) / (1 + z * z / n)]
    assert Share(30, 200).interval == pytest.approx(expected)
    assert Share(0, 1000).interval == pytest.approx((0, z * z / (1000 + z * z)), abs=1e-12)
    assert Share(30, 200).text() == '15.0% (10.7% to 20.6%)'


def test_a_garment_is_named_above_a_probability_of_one_half():
    images = [np.concatenate([*backgrounds(64, 3)])]
    assert measure(images, constant_classifier([0.0] * 10)).named == Share(0, 3)
    found = measure(images, constant_classifier([0.01, *[-1.0] * 8, 3.0]))
    assert found.named == Share(3, 3)
    assert found.empty == Share(3, 3)
    assert found.garments == {name: 3 * (name in ('ankle-boot', 'trouser')) for name in CLASSES}


def test_quality_does_not_depend_on_the_file_type(tmp_path):
    pixels = np.concatenate([*backgrounds(64, 2), scene_with_a_square(0.3, 90).repeat(2, 1)[:, :64, :1].repeat(64, 2)])
    classifier = constant_classifier([1.0] * 10)
    np.savez(tmp_path / 'images.npz', arr_0=pixels)
    found = quality_of(write_folder(tmp_path / 'folder', pixels), classifier)
    assert found == quality_of(tmp_path / 'images.npz', classifier)
    assert found.named.total == 3


def test_average_precision_and_precision_of_the_classifier():
    """Against values that were computed by hand."""
    targets, probabilities = torch.zeros(4, 10), torch.full((4, 10), 0.1)
    targets[0] = 1
    probabilities[0] = 0.9
    # class 0: a wrong scene is first, so that its one garment has a precision of 1/2
    probabilities[3, 0] = 0.95
    found = scored(probabilities, targets)
    assert found.average_precision == pytest.approx({name: 0.5 if name == CLASSES[0] else 1.0 for name in CLASSES})
    assert found.mean_average_precision == pytest.approx(0.95)
    assert found.precision == pytest.approx(10 / 11)
    assert found.recall == pytest.approx(1)


def test_targets_are_the_garments_of_the_scenes(written_set):
    generator = SceneGenerator(load_garments('val'), 64, 'val', seed=3)
    targets = scene_targets(written_set, 'val')
    assert targets.shape == (6, 10)
    for index, row in enumerate(targets):
        assert set(row.nonzero().flatten().tolist()) == set(generator.scene(index).labels.tolist())


def test_warped_scenes_keep_their_colours_and_lose_their_shapes():
    generator = SceneGenerator(few_garments('val', 10), 64, 'val', seed=5)
    scenes = [generator.scene(index) for index in range(20)]
    pixels = torch.stack([torch.from_numpy(scene.image).permute(2, 0, 1) for scene in scenes])
    bent = warped(pixels, torch.Generator().manual_seed(0))
    assert torch.equal(bent, warped(pixels, torch.Generator().manual_seed(0)))
    areas = [object_share(images.permute(0, 2, 3, 1).contiguous().numpy()).mean() for images in (pixels, bent)]
    assert areas[1] == pytest.approx(areas[0], rel=0.2)
    moved = (bent.int() - pixels.int()).abs().amax(1) > COLOUR_DISTANCE
    assert moved.float().mean() > 0.3 * areas[0]


def test_a_part_of_the_training_scenes_is_warped_and_has_no_garment():
    pixels = torch.randint(256, (400, 3, 8, 8), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    targets = torch.ones(400, 10)
    torch.manual_seed(0)
    images, labels = changed(pixels, targets, Recipe(warped_share=0.3, blurred_share=0.0))
    whole = [i for i in range(400) if torch.equal(images[i], pixels[i]) or torch.equal(images[i], pixels[i].flip(-1))]
    assert labels[whole].all()
    assert labels.sum() == 10 * len(whole)
    assert 0.6 < len(whole) / 400 < 0.8
    images, labels = changed(pixels, targets, Recipe(warped_share=0.0, blurred_share=1.0))
    assert labels.all()
    assert images.float().std() < 0.5 * pixels.float().std()


@pytest.fixture
def two_garments():
    """Dark scenes with a garment of the first class, and bright ones with one of the last."""
    pixels = torch.stack([torch.full((3, 32, 32), value, dtype=torch.uint8) for value in (40, 200)])
    return pixels.repeat(8, 1, 1, 1), torch.eye(10)[[0, 9]].repeat(8, 1)


def test_training_learns_the_garments(two_garments):
    pixels, targets = two_garments
    model = train(pixels, targets, Recipe(epochs=20, batch_size=8, warped_share=0.0))
    probabilities = garment_probabilities(model, pixels[:2].permute(0, 2, 3, 1).numpy())
    assert ((probabilities > 0.5).float() == targets[:2]).all()


def test_training_depends_on_the_seed_alone_and_keeps_random_states(two_garments):
    before = torch.get_rng_state()
    first = train(*two_garments, FAST).state_dict()
    assert torch.equal(torch.get_rng_state(), before)
    torch.rand(1)
    again = train(*two_garments, FAST).state_dict()
    assert all(torch.equal(value, again[name]) for name, value in first.items())
    other = train(*two_garments, Recipe(epochs=1, batch_size=8, seed=1)).state_dict()
    assert not all(torch.equal(value, other[name]) for name, value in first.items())


def test_the_classifier_is_trained_once_for_data_and_recipe(own_set, tmp_path):
    work_dir = tmp_path / 'work'
    model = trained_classifier(own_set, work_dir, FAST)
    [file] = work_dir.iterdir()
    changed = file.stat().st_mtime_ns
    again = trained_classifier(own_set, work_dir, FAST)
    assert file.stat().st_mtime_ns == changed
    assert all(torch.equal(value, again.state_dict()[name]) for name, value in model.state_dict().items())
    trained_classifier(own_set, work_dir, Recipe(epochs=1, batch_size=8, seed=1))
    annotations = own_set / 'annotations/instances_train.json'
    annotations.write_text(annotations.read_text() + '\n')
    trained_classifier(own_set, work_dir, FAST)
    assert len(list(work_dir.iterdir())) == 3


def test_damaged_weights_are_trained_again(own_set, tmp_path, capsys):
    model = trained_classifier(own_set, tmp_path / 'work', FAST)
    [file] = (tmp_path / 'work').iterdir()
    whole = file.read_bytes()
    file.write_bytes(whole[:100])
    again = trained_classifier(own_set, tmp_path / 'work', FAST)
    assert 'is damaged, so the classifier is trained again' in capsys.readouterr().out
    assert file.read_bytes() == whole
    assert all(torch.equal(value, again.state_dict()[name]) for name, value in model.state_dict().items())


def test_table_and_file_of_the_script(written_set, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr('scene_quality.NUM_BACKGROUNDS', 4)
    generated = write_folder(tmp_path / 'generated', np.concatenate([*backgrounds(64, 3)]))
    out = tmp_path / 'quality.json'
    options = ['--data-root', str(written_set), '--work-dir', str(tmp_path / 'work'), '--out', str(out)]
    main([str(generated), *options])
    lines = capsys.readouterr().out.splitlines()
    assert lines[1].split()[:3] == [str(generated), '3', '100.0%']
    assert lines[2].startswith('real validation scenes')
    assert lines[3].startswith('the same, warped')
    assert lines[4].startswith('backgrounds')
    content = json.loads(out.read_text())
    assert content['images'][str(generated)]['empty']['count'] == 3
    assert content['references']['real validation scenes']['empty'] == Share(0, 6).as_dict()
    assert 0 <= content['classifier']['mean_average_precision'] <= 1


@pytest.mark.parametrize(
    'images, data_root, message',
    [
        ('missing', None, 'missing does not exist'),
        ('empty', None, 'empty has no images'),
        ('scenes', 'empty', 'does not have FashionScenes'),
    ],
)
def test_wrong_paths_are_refused_before_the_training(images, data_root, message, written_set, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / 'empty').mkdir()
    (tmp_path / 'scenes').symlink_to(written_set / 'scenes/val')
    with pytest.raises(SystemExit, match=f'error: .*{message}'):
        main([images, '--data-root', str(data_root or written_set)])
    assert not (tmp_path / 'work_dirs').exists()


def test_annotations_of_other_scenes_are_refused(own_set):
    next((own_set / 'scenes/val').iterdir()).unlink()
    with pytest.raises(UserError, match='does not describe the scenes'):
        scene_targets(own_set, 'val')
    (own_set / 'annotations/instances_val.json').write_text('{"images": [')
    with pytest.raises(UserError, match='cannot be read as annotations'):
        scene_targets(own_set, 'val')
