# Copyright (c) addp_mm contributors. Apache-2.0.
"""Names of backbones: the zoo, models of timm, checkpoints."""

import pytest
import timm
import torch
from helpers.recipes import CONFIGS
from mmengine.config import Config
from mmengine.registry import DefaultScope

from addp_mm.registry import MODELS
from addp_mm.swap.candidate import candidate_of
from addp_mm.swap.plan import SwapError
from addp_mm.swap.recipes import VIT_B
from addp_mm.swap.zoo import ZOO, find_backbone
from addp_mm.swap.zoo_entry import HALF

TINY = dict(embed_dims=16, num_layers=4, num_heads=2)
# names of one architecture and size are one case
SOME = ('addp_b', 'addp_nano', 'dinov2_s', 'dinov3_s', 'convnext_t', 'swin_t', 'maxvit_t', 'volo_d1', 'resnet50')


@pytest.mark.parametrize('name', SOME)
def test_candidates_of_the_zoo(name):
    candidate = candidate_of(find_backbone(name).backbone)
    plain = {'addp_b': (16, 768), 'addp_nano': (8, 128), 'dinov2_s': (14, 384), 'dinov3_s': (16, 384)}
    if name in plain:
        stride, width = plain[name]
        assert candidate.maps.strides == (stride,) * 4
        assert candidate.maps.channels == (width,) * 4
        assert candidate.indices == ((1, 2, 4, 5) if name == 'addp_nano' else (2, 5, 8, 11))
    elif name == 'volo_d1':
        assert candidate.maps.strides == (8, 16, 16, 16)
        assert candidate.maps.channels == (192, 384, 384, 384)
    else:
        assert candidate.maps.strides == (4, 8, 16, 32)
        assert candidate.indices == ((1, 2, 3, 4) if name in ('maxvit_t', 'resnet50') else (0, 1, 2, 3))


def test_models_of_timm_in_the_zoo_exist_with_these_colours():
    for name, entry in ZOO.items():
        if entry.backbone['type'] != 'addp_mm.TimmBackbone':
            continue
        cfg = timm.get_pretrained_cfg(entry.backbone['model'], allow_unregistered=False)
        assert cfg is not None, name
        for ours, theirs in zip(entry.colours, (cfg.mean, cfg.std), strict=True):
            assert ours == pytest.approx([255 * value for value in theirs], abs=1e-3), name


def texts(node):
    """Every text in nested dicts and lists."""
    if isinstance(node, str):
        yield node
    elif isinstance(node, dict | list | tuple):
        for value in node.values() if isinstance(node, dict) else node:
            yield from texts(value)


def test_weights_of_volo_are_files_that_timm_names():
    """The zoo and the configs name files of VOLO's release, such as d5_224_86.10.pth.tar."""
    cfgs = (Config.fromfile(path) for path in sorted(CONFIGS.glob('*/*volo-d*.py')))
    used = {text for node in (*(entry.backbone for entry in ZOO.values()), *map(dict, cfgs)) for text in texts(node)}
    files = {text for text in used if text.startswith('https://github.com/sail-sg/volo') and text.endswith('.tar')}
    known = {timm.get_pretrained_cfg(name).url for name in timm.list_pretrained('volo_*')}
    assert len(files) == 5
    assert files <= known


def test_any_model_of_timm():
    entry = find_backbone('timm:vit_base_patch16_siglip_224.v2_webli')
    assert entry.backbone == dict(
        type='addp_mm.TimmBackbone', model='vit_base_patch16_siglip_224.v2_webli', pretrained=True
    )
    assert entry.colours == HALF
    assert entry.recipes is VIT_B
    assert find_backbone('timm:resnet18').recipes is None


def test_a_checkpoint_of_ours_gives_its_arguments(tmp_path):
    arguments = dict(
        arch=dict(embed_dims=768, num_layers=2, num_heads=12), img_size=48, patch_size=16, pre_norm=True, out_type='raw'
    )
    arguments['arch'] = dict(embed_dims=128, num_layers=6, num_heads=4)
    with DefaultScope.overwrite_default_scope('mmpretrain'):
        built = MODELS.build(dict(type='addp_mm.ADDPViT', **arguments))
    path = tmp_path / 'run.pth'
    torch.save(dict(state_dict={f'backbone.{key}': value for key, value in built.state_dict().items()}), path)
    entry = find_backbone(str(path))
    assert entry.backbone['patch_size'] == 16
    assert entry.backbone['pre_norm'] is True
    assert entry.backbone['arch'] == dict(embed_dims=128, num_layers=6, num_heads=4, mlp_ratio=4.0)
    assert entry.backbone['init_cfg'] == dict(type='addp_mm.Pretrained', checkpoint=str(path), prefix='backbone.')
    with DefaultScope.overwrite_default_scope('mmpretrain'):
        loaded = MODELS.build(dict(entry.backbone, img_size=48, out_type='raw'))
    loaded.init_weights()
    images = torch.rand(1, 3, 48, 48)
    assert torch.equal(built.eval()(images)[0], loaded.eval()(images)[0])


def test_the_shipped_checkpoint_is_the_nano_backbone_of_the_zoo():
    found, named = find_backbone('addp_mm://addp_nano-p8.safetensors'), find_backbone('addp_nano')
    assert found.backbone['patch_size'] == named.backbone['patch_size']
    assert found.backbone['pre_norm'] == named.backbone['pre_norm']
    assert found.backbone['init_cfg'] == named.backbone['init_cfg']


def test_a_checkpoint_in_another_layout(tmp_path):
    model = timm.create_model('vit_tiny_patch16_224', num_classes=0)
    path = tmp_path / 'timm.pth'
    torch.save(model.state_dict(), path)
    entry = find_backbone(str(path))
    assert entry.backbone['arch'] == dict(embed_dims=192, num_layers=12, num_heads=3, mlp_ratio=4.0)
    assert entry.backbone['init_cfg'] == dict(type='addp_mm.Pretrained', checkpoint=str(path))


@pytest.mark.parametrize(
    'name, message',
    [
        ('dinov3_bb', r"no backbone 'dinov3_bb'; did you mean dinov3_b"),
        ('timm:vit_base_patch16_dinov4', r"no model 'vit_base_patch16_dinov4'; did you mean vit_base_patch16_dinov3"),
        ('timm:vit_base_patch16_dinov3.lvd', r"no weights 'lvd' of vit_base_patch16_dinov3; it has lvd1689m"),
    ],
)
def test_misspelt_names_are_refused_with_similar_ones(name, message):
    with pytest.raises(SwapError, match=message):
        find_backbone(name)


def test_checkpoints_without_a_vit_are_refused(tmp_path):
    path = tmp_path / 'resnet.pth'
    torch.save({'conv1.weight': torch.zeros(4, 3, 3, 3)}, path)
    with pytest.raises(SwapError, match='holds no weights of a ViT'):
        find_backbone(str(path))
    odd = tmp_path / 'odd.pth'
    with DefaultScope.overwrite_default_scope('mmpretrain'):
        torch.save(MODELS.build(dict(type='addp_mm.ADDPViT', arch=TINY, img_size=32)).state_dict(), odd)
    with pytest.raises(SwapError, match='number of attention heads of a ViT'):
        find_backbone(str(odd))
