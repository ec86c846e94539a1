# Copyright (c) addp_mm contributors. Apache-2.0.
"""Checkpoints of another model, or of one with another number of blocks."""

import logging

import pytest
import torch
from helpers.timm_families import VIT
from torch import nn

from addp_mm.checkpoints.errors import CheckpointError
from addp_mm.models.backbones import VOLO, ADDPViT, TimmBackbone
from addp_mm.models.pretrained import Pretrained


def saved(weights, path):
    torch.save(dict(state_dict=weights), path)
    return str(path)


class Whole(nn.Module):
    """A model with a backbone."""

    def __init__(self, backbone):
        super().__init__()
        self.backbone = backbone


def test_weights_of_another_class_are_refused_and_named(tmp_path):
    sizes = dict(arch=dict(embed_dims=32, num_layers=2, num_heads=2), img_size=224)
    ours = ADDPViT(**sizes).state_dict()
    resnet = TimmBackbone('resnet18', model_kwargs=dict(channels=(8, 8, 16, 16)))
    path = saved(ours, tmp_path / 'a.pth')
    with pytest.raises(CheckpointError) as caught:
        Pretrained(path)(resnet)
    assert str(caught.value) == (f'{path}: no weight matches TimmBackbone (resnet18). The file holds addp_mm.ADDPViT.')
    path = saved({f'backbone.{name}': value for name, value in resnet.state_dict().items()}, tmp_path / 'a.pth')
    with pytest.raises(
        CheckpointError, match=r"ADDPViT\. The file holds addp_mm\.TimmBackbone of ResNet \(.* prefix 'backbone\.'\)\.$"
    ):
        Pretrained(path)(ADDPViT(**sizes))
    with pytest.raises(CheckpointError, match=r"names under the prefix 'backbone\.': set prefix='backbone\.'\.$"):
        Pretrained(path)(resnet)
    path = saved(resnet.state_dict(), tmp_path / 'a.pth')
    with pytest.raises(CheckpointError, match=r'Whole\. They are those of its backbone: set init_cfg of backbone\.$'):
        Pretrained(path)(Whole(resnet))
    path = saved(VOLO('nano', img_size=64).state_dict(), tmp_path / 'a.pth')
    with pytest.raises(CheckpointError, match=r'matches ADDPViT\. The file holds addp_mm\.VOLO\.$'):
        Pretrained(path)(ADDPViT(**sizes))


@pytest.mark.parametrize('saved_depth, depth, difference', [(3, 2, 'which .* has not'), (2, 3, 'it lacks')])
def test_another_number_of_blocks_is_refused_in_a_whole_model_too(saved_depth, depth, difference, tmp_path):
    def build(depth):
        return TimmBackbone('vit_tiny_patch16_224', model_kwargs=dict(VIT, depth=depth))

    for part, whole in ((build(saved_depth), build(depth)), (Whole(build(saved_depth)), Whole(build(depth)))):
        with pytest.raises(CheckpointError, match=rf'a\.pth: it is not a checkpoint of vit_tiny.*{difference}'):
            Pretrained(saved(part.state_dict(), tmp_path / 'a.pth'))(whole)
    shorter = TimmBackbone('vit_tiny_patch16_224', model_kwargs=dict(VIT, depth=3), out_indices=0)
    Pretrained(saved(Whole(build(3)).state_dict(), tmp_path / 'a.pth'))(Whole(shorter))  # it needs no later block


def test_blocks_that_stay_random_are_a_warning(tmp_path, monkeypatch):
    def build(layers):
        return ADDPViT(dict(embed_dims=32, num_layers=layers, num_heads=2), img_size=32)

    reports = []
    monkeypatch.setattr('addp_mm.models.pretrained.print_log', lambda text, level, **_: reports.append((level, text)))
    Pretrained(saved(build(2).state_dict(), tmp_path / 'a.pth'))(build(4))
    level, text = reports[-1]
    assert level == logging.WARNING
    assert 'The checkpoint has no blocks.2.*, blocks.3.*, which stay random.' in text
