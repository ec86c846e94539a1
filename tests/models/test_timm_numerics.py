# Copyright (c) addp_mm contributors. Apache-2.0.
"""TimmBackbone and VOLO in other precisions and memory formats, copied, averaged and exported."""

import copy

import pytest
import torch
from helpers.timm_families import SWIN, VIT, randomise
from mmengine.model import ExponentialMovingAverage

from addp_mm.models.backbones import VOLO, TimmBackbone

MODELS = {
    'vit_tiny_patch16_224': VIT,
    'swin_tiny_patch4_window7_224': SWIN,
    'convnext_tiny': dict(depths=(1, 1, 2, 1), dims=(8, 16, 24, 32)),
}
NAMES = [*MODELS, 'volo']


def build(name, **options):
    torch.manual_seed(0)
    if name == 'volo':
        backbone = VOLO('nano', img_size=64, **options)
    else:
        backbone = TimmBackbone(name, model_kwargs=MODELS[name], **options)
    randomise(backbone, 0.1)
    return backbone.eval()


def difference(found, expected):
    """Largest difference in one of the maps, relative to its largest value."""
    return max(
        ((one.float() - other).abs().max() / other.abs().max()).item()
        for one, other in zip(found, expected, strict=True)
    )


@torch.no_grad()
@pytest.mark.parametrize('name', NAMES)
def test_precisions_and_memory_formats(name):
    backbone, image = build(name), torch.rand(2, 3, 96, 64)
    expected = backbone(image)
    for dtype, most in ((torch.bfloat16, 0.03), (torch.float16, 0.004)):
        with torch.autocast('cpu', dtype):
            assert difference(backbone(image), expected) < most
        converted = copy.deepcopy(backbone).to(dtype)(image.to(dtype))
        assert {out.dtype for out in converted} == {dtype}
        assert difference(converted, expected) < most
    last = copy.deepcopy(backbone).to(memory_format=torch.channels_last)
    assert difference(last(image.to(memory_format=torch.channels_last)), expected) < 1e-5


@torch.no_grad()
@pytest.mark.parametrize('name', NAMES)
def test_copies_and_averages_have_their_own_weights(name):
    backbone, image = build(name), torch.rand(2, 3, 96, 64)
    expected = backbone(image)
    copied, averaged = copy.deepcopy(backbone), ExponentialMovingAverage(backbone, momentum=0.5)
    averaged.update_parameters(backbone)  # the first update copies
    for parameter in backbone.parameters():
        parameter.mul_(1.5)
    assert difference(backbone(image), expected) > 1e-3
    assert difference(copied(image), expected) == 0
    assert difference(averaged.eval()(image), expected) < 1e-6
    averaged.update_parameters(backbone)
    for parameter, own in zip(copied.parameters(), averaged.module.parameters(), strict=True):
        torch.testing.assert_close(own, 1.25 * parameter)


@torch.no_grad()
@pytest.mark.parametrize('name', NAMES)
def test_an_exported_program_computes_the_same(name):
    backbone, image = build(name), torch.rand(2, 3, 96, 64)
    program = torch.export.export(backbone, (image,), strict=False).module()
    assert difference(program(image), backbone(image)) < 1e-5
