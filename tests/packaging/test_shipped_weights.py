# Copyright (c) addp_mm contributors. Apache-2.0.
"""The shipped files have the checksums of addp_mm/assets/README.md, and the weights are good."""

import hashlib
import math
import re
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F

from addp_mm.apis import load_model
from addp_mm.datasets.fashion.fashion_mnist import load_garments
from addp_mm.datasets.fashion.fashion_scenes import SceneGenerator

ROOT = Path(__file__).parents[2]
ASSETS = ROOT / 'addp_mm/assets'
README = (ASSETS / 'README.md').read_text()
CONFIG = ROOT / 'configs/pretrain/addp_vit-nano-p8_2xb16-fp32-4k_fashion-scenes-64px.py'


@pytest.fixture(scope='module')
def model():
    return load_model(CONFIG, ASSETS / 'addp_nano-p8.safetensors')


@pytest.fixture(scope='module')
def images():
    """32 validation scenes, (32, 3, 64, 64) in [0, 1]."""
    generator = SceneGenerator(load_garments('val'), image_size=64, split='val')
    return torch.stack([torch.from_numpy(generator.scene(index).image).permute(2, 0, 1) for index in range(32)]) / 255


def test_files_have_the_checksums_of_their_readme():
    stated = dict(re.findall(r'^\| `(\S+)` \| `([0-9a-f]{64})` \|', README, re.M))
    stated['fashion_mnist_subset.npz'] = re.search(r'SHA-256\s+`([0-9a-f]{64})`', README).group(1)
    files = {path.name: path for path in ASSETS.iterdir() if path.name != 'README.md'}
    assert set(stated) == set(files)
    assert len(files) == 5
    assert stated == {name: hashlib.sha256(path.read_bytes()).hexdigest() for name, path in files.items()}


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
