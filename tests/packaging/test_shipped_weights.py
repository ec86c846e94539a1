# Copyright (c) addp_mm contributors. Apache-2.0.
"""The shipped files have the checksums of addp_mm/assets/README.md, and the weights are good."""

import hashlib
import math
import re
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from mmengine.registry import DefaultScope
from torchvision.ops import box_iou, masks_to_boxes

from addp_mm.alignment.rewards import build_reward
from addp_mm.apis import load_model
from addp_mm.app.dense_predictor import load_predictor
from addp_mm.datasets.fashion.fashion_mnist import CLASSES, load_garments
from addp_mm.datasets.fashion.fashion_scenes import SceneGenerator

ROOT = Path(__file__).parents[2]
ASSETS = ROOT / 'addp_mm/assets'
README = (ASSETS / 'README.md').read_text()
DETECTOR = (
    'mask-rcnn_addp-vit-nano-p8_fpn_1xb16-fp32-12k_fashion-scenes-64px',
    'addp_mm://mask-rcnn_addp-vit-nano-p8.safetensors',
)
SEGMENTOR = (
    'upernet_addp-vit-nano-p8_1xb16-bf16-18k_fashion-scenes-64px',
    'addp_mm://upernet_addp-vit-nano-p8.safetensors',
)
CLASSIFIER = ('resnet18-nano_from-scratch_1xb64-fp32-2k_fashion-scenes-64px', 'addp_mm://resnet18-nano.safetensors')
# least share of garments that the classifier names, of images and of their reconstructions
LEAST = (0.7, 0.6)
CONFIG = ROOT / 'configs/pretrain/addp_vit-nano-p8_2xb16-fp32-4k_fashion-scenes-64px.py'


@pytest.fixture(scope='module')
def model():
    return load_model(CONFIG, ASSETS / 'addp_nano-p8.safetensors')


@pytest.fixture(scope='module')
def scenes():
    """32 validation scenes."""
    generator = SceneGenerator(load_garments('val'), image_size=64, split='val')
    return [generator.scene(index) for index in range(32)]


@pytest.fixture(scope='module')
def images(scenes):
    """Their images, (32, 3, 64, 64) in [0, 1]."""
    return torch.stack([torch.from_numpy(scene.image).permute(2, 0, 1) for scene in scenes]) / 255


def test_files_have_the_checksums_of_their_readme():
    stated = dict(re.findall(r'^\| `(\S+)` \| `([0-9a-f]{64})` \|', README, re.M))
    stated['fashion_mnist_subset.npz'] = re.search(r'SHA-256\s+`([0-9a-f]{64})`', README).group(1)
    files = {path.name: path for path in ASSETS.iterdir() if path.name != 'README.md'}
    assert set(stated) == set(files)
    assert stated == {name: hashlib.sha256(path.read_bytes()).hexdigest() for name, path in files.items()}


def test_the_weights_have_the_stated_size_and_at_most_32_mb():
    sizes = [path.stat().st_size for path in ASSETS.glob('*.safetensors')]
    stated = re.search(r'([\d,]+)\s+bytes\s+in\s+all', README).group(1)
    assert sum(sizes) == int(stated.replace(',', '')) <= 32e6


def test_tokenizer_reconstructs_scenes_at_22_db_or_better(model, images):
    latents = model.tokenize(images)[1]
    error = (model.decode(latents) - images).square().mean((1, 2, 3))
    assert (-10 * error.log10()).mean() >= 22


def test_predictor_and_addp_are_far_better_than_chance(model, images):
    """Cross entropy on the masked half of the tokens, in nats; chance is log(512) = 6.24."""
    ids, latents = model.tokenize(images)
    mask = torch.rand(ids.shape, generator=torch.Generator().manual_seed(0)) < 0.5
    noisy = model.add_noise(ids, latents, mask, mask)[0]
    predictions = dict(predictor=model.predictor(ids, mask).log(), addp=model.predict_tokens(noisy, ids, mask))
    chance = math.log(len(model.tokenizer.codebook))
    for name, logits in predictions.items():
        assert F.cross_entropy(logits[mask], ids[mask]) < chance - 1, name


def test_the_encoder_of_mae_is_loaded_completely(capsys):
    from addp_mm.models.backbones import ADDPViT

    init_cfg = dict(type='addp_mm.Pretrained', checkpoint='addp_mm://mae_nano-p8.safetensors')
    ADDPViT('nano', img_size=64, patch_size=8, init_cfg=init_cfg).init_weights()
    log = capsys.readouterr().out
    assert 'converted from the layout of mmpretrain ViT' in log
    assert 'left out none, missing none' in log
    assert 'WARNING' not in log


def test_the_detector_finds_and_names_most_garments(scenes):
    """A garment is found if an object of its class with a score of 0.3 covers half of its box."""
    detector, found = load_predictor(*DETECTOR, 'det'), []
    for scene in scenes:
        boxes, labels = masks_to_boxes(torch.from_numpy(scene.masks())), torch.from_numpy(scene.labels)
        objects = detector(scene.image).pred_instances
        objects = objects[objects.scores >= 0.3]
        fits = (box_iou(boxes, objects.bboxes) >= 0.5) & (labels[:, None] == objects.labels)
        found += fits.any(1).tolist()
    assert np.mean(found) >= 0.7


def test_the_segmentor_labels_most_pixels_of_garments(scenes):
    segmentor, right = load_predictor(*SEGMENTOR, 'seg'), []
    for scene in scenes:
        labels = segmentor(scene.image).pred_sem_seg.data[0].numpy()
        wanted = scene.label_map() - 1  # of the dataset with reduce_zero_label
        right += (labels == wanted)[wanted > 0].tolist()
    assert np.mean(right) >= 0.53


@pytest.fixture(scope='module')
def garments():
    """50 validation images of one garment, (50, 3, 64, 64) in [0, 1]; the class is i % 10."""
    generator = SceneGenerator(load_garments('val'), image_size=64, split='val')
    images = np.stack([generator.object_image(index).image for index in range(50)])
    return torch.from_numpy(images).permute(0, 3, 1, 2) / 255


@pytest.mark.parametrize('rebuilt', [False, True])
def test_the_classifier_rewards_a_garment_for_its_own_class(model, garments, rebuilt):
    reward = build_reward(dict(type='ClassifierReward', config=CLASSIFIER[0], checkpoint=CLASSIFIER[1]))
    images = model.decode(model.tokenize(garments)[1]) if rebuilt else garments
    found = torch.stack([reward(images, torch.full((50,), label)) for label in range(10)], 1)
    labels = torch.arange(50) % 10
    own = F.one_hot(labels, 10).bool()
    assert (found.argmax(1) == labels).float().mean() >= LEAST[rebuilt]
    assert found[own].mean() > found[~own].mean() + 2
    # the images can be ranked: neither all certain nor all impossible
    assert found[own].quantile(0.9) < -0.02
    assert found[own].mean() > -1.5
    assert found.min() > -15


def test_inferencers_by_name_know_the_garments():
    from mmdet.apis import DetInferencer
    from mmseg.apis import MMSegInferencer

    for kind, name, classes in [
        (DetInferencer, DETECTOR[0], CLASSES),
        (MMSegInferencer, SEGMENTOR[0], ('background', *CLASSES)),
    ]:
        with DefaultScope.overwrite_default_scope('mmdet'):
            assert tuple(kind(name, device='cpu').model.dataset_meta['classes']) == classes
