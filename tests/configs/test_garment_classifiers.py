# Copyright (c) addp_mm contributors. Apache-2.0.
"""The classifiers of garments: independent of ADDP and each other, trained on soft images."""

import importlib
from contextlib import contextmanager

import numpy as np
import pytest
import torch
from helpers.recipes import build_recipe, load_recipe, recipe_scope
from mmengine.registry import TRANSFORMS

from addp_mm.datasets.fashion.fashion_mnist import load_garments
from addp_mm.datasets.fashion.fashion_scenes import SceneGenerator
from addp_mm.randomness import Purpose, random_states_kept, seed_process

REWARD, JUDGE = (f'cls/resnet18-nano{wide}_from-scratch_1xb64-fp32-2k_fashion-scenes-64px.py' for wide in ('', '-wide'))


@pytest.fixture(scope='module')
def garment():
    return SceneGenerator(load_garments('val'), 64, 'val').object_image(0).image[..., ::-1].copy()


@contextmanager
def seeded():
    """The transforms of mmpretrain draw from global generators."""
    with random_states_kept():
        seed_process(0, Purpose.TRAINING_STEP, accelerators=False)
        yield


def test_the_judge_has_another_width_and_another_seed_and_no_shared_weights():
    reward, judge = load_recipe(REWARD), load_recipe(JUDGE)
    assert reward.randomness.seed != judge.randomness.seed
    assert reward.model.backbone.base_channels < judge.model.backbone.base_channels
    for cfg in (reward, judge):
        assert cfg.load_from is None
        assert not [part for part in ('backbone', 'neck', 'head') if 'init_cfg' in cfg.model[part]]
    different = {key for key in reward.to_dict() if reward[key] != judge[key]}
    assert different == {'model', 'randomness', 'channels'}


def test_half_of_the_training_images_are_blurred(garment):
    cfg = load_recipe(REWARD)
    (blur,) = (step for step in cfg.train_pipeline if step.type == 'GaussianBlur')
    importlib.import_module('mmpretrain.datasets')
    with recipe_scope(cfg):
        transform = TRANSFORMS.build(blur)
    with seeded():
        kept = [np.array_equal(transform(dict(img=garment))['img'], garment) for _ in range(200)]
    assert 0.4 < np.mean(kept) < 0.6


def test_the_training_pipeline_keeps_size_and_class_and_changes_colours(garment):
    cfg = load_recipe(REWARD)
    importlib.import_module('mmpretrain.datasets')
    with recipe_scope(cfg):
        steps = [TRANSFORMS.build(step) for step in cfg.train_pipeline[2:]]
    colours = []
    with seeded():
        for _ in range(8):
            results = dict(img=garment, img_shape=(64, 64), gt_label=3)
            for step in steps:
                results = step(results)
            assert results['inputs'].shape == (3, 64, 64)
            assert results['data_samples'].gt_label.tolist() == [3]
            colours.append(results['inputs'].float().mean((1, 2)))
    assert torch.stack(colours).std(0).min() > 2


@pytest.mark.parametrize('path', [REWARD, JUDGE])
def test_the_last_map_has_16_positions(path):
    cfg = load_recipe(path)
    model = build_recipe(cfg).eval()
    images = torch.zeros(2, 3, 64, 64)
    assert model.backbone(images)[-1].shape == (2, cfg.model.head.in_channels, 4, 4)
    assert model(images, mode='tensor').shape == (2, 10)
