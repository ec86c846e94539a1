# Copyright (c) addp_mm contributors. Apache-2.0.
"""Weights of TimmBackbone: timm's files, the original projects', the Hub's cache, and refusals."""

import logging

import pytest
import timm
import torch
from helpers.timm_families import FAMILIES, randomise, timm_model, use_small_mvit
from safetensors.torch import save_file

import addp_mm.models.pretrained  # noqa: F401  # registers addp_mm.Pretrained
from addp_mm.checkpoints.errors import CheckpointError
from addp_mm.checkpoints.init_weights import init_weights
from addp_mm.models.backbones import TimmBackbone
from addp_mm.models.backbones.timm_weights import WeightsError
from addp_mm.models.layers import OptionError


@pytest.fixture(autouse=True)
def small_mvit(monkeypatch):
    use_small_mvit(monkeypatch)


@pytest.fixture
def lines(monkeypatch):
    """Reports of addp_mm.Pretrained: (level, text)."""
    reports = []
    monkeypatch.setattr('addp_mm.models.pretrained.print_log', lambda text, level, **_: reports.append((level, text)))
    return reports


def classifier_of(family, **kwargs):
    torch.manual_seed(0)
    model = timm_model(family, num_classes=5, **kwargs)
    randomise(model)
    return model


def saved(weights, path):
    if path.suffix == '.safetensors':
        save_file({name: weight.contiguous() for name, weight in weights.items()}, path)
    else:
        torch.save(dict(state_dict=weights), path)
    return str(path)


def load(family, checkpoint, options=None, **backbone):
    kwargs = {**family.kwargs, **backbone.pop('model_kwargs', {})}
    backbone = TimmBackbone(
        family.model,
        model_kwargs=kwargs,
        init_cfg=dict(type='addp_mm.Pretrained', checkpoint=checkpoint, **(options or {})),
        **backbone,
    )
    init_weights(backbone)
    return backbone.eval()


def maps_of(backbone, x):
    with torch.no_grad():
        return backbone(x)


def assert_same_maps(backbone, family, weights, size=(96, 160)):
    """The maps are those of a backbone that got timm's weights directly."""
    direct = TimmBackbone(family.model, model_kwargs=family.kwargs).eval()
    direct.timm_model.load_state_dict(weights, strict=False)
    x = torch.rand(1, 3, *size, generator=torch.Generator().manual_seed(1))
    for ours, wanted in zip(maps_of(backbone, x), maps_of(direct, x), strict=True):
        torch.testing.assert_close(ours, wanted, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    'name', ['augreg', 'dinov3', 'swin', 'convnext', 'mvitv2', 'hiera', 'maxvit', 'volo', 'resnet']
)
def test_a_classifier_of_timm_loads_without_a_word_about_its_head(name, tmp_path, lines):
    family = FAMILIES[name]
    weights = classifier_of(family).state_dict()
    backbone = load(family, saved(weights, tmp_path / 'model.safetensors'))
    [(level, text)] = lines
    assert level == logging.INFO
    assert text.endswith('resized none, left out none, missing none.')
    assert_same_maps(backbone, family, weights)


@pytest.mark.parametrize('name', ['augreg', 'beitv2', 'dinov2', 'mvitv2', 'hiera', 'volo', 'swin'])
def test_positions_are_resized_on_load(name, tmp_path, lines):
    family = FAMILIES[name]
    size = (128, 128) if name == 'mvitv2' else family.other
    options = dict(img_size=size, **(family.at_other or {}))
    weights = classifier_of(family).state_dict()
    backbone = load(family, saved(weights, tmp_path / 'model.pth'), model_kwargs=options)
    assert ('resized none' in lines[0][1]) == (name == 'swin')  # its windows keep their size
    assert_same_maps(backbone, family, weights, size)


def test_positions_that_are_not_square(tmp_path):
    family = FAMILIES['augreg']
    source = load(
        family, saved(classifier_of(family).state_dict(), tmp_path / 'a.pth'), model_kwargs=dict(img_size=(64, 256))
    )
    path = saved({f'backbone.{name}': weight for name, weight in source.state_dict().items()}, tmp_path / 'b.pth')
    same = load(family, path, dict(prefix='backbone.'), model_kwargs=dict(img_size=(64, 256)))
    assert torch.equal(same.timm_model.pos_embed, source.timm_model.pos_embed)
    square = load(family, path, dict(prefix='backbone.', pos_grid=(4, 16)), model_kwargs=dict(img_size=128))
    x = torch.rand(1, 3, 128, 128)
    torch.testing.assert_close(maps_of(square, x), maps_of(source, x))


def test_official_dinov3(tmp_path):
    """In the repository of DINOv3, registers and layer scale have other names, and RoPE is kept."""
    family = FAMILIES['dinov3']
    weights = classifier_of(family).state_dict()
    official = {'mask_token': torch.zeros(1, 64), 'rope_embed.periods': torch.zeros(16)}
    for name, weight in weights.items():
        name = name.replace('reg_token', 'storage_tokens')
        for branch in '12':
            name = name.replace(f'gamma_{branch}', f'ls{branch}.gamma')
        if not name.startswith(('head', 'fc_norm')):
            official[name] = weight
    for block in range(2):
        official[f'blocks.{block}.attn.qkv.bias'] = torch.zeros(192)
        official[f'blocks.{block}.attn.qkv.bias_mask'] = torch.ones(192)
    assert_same_maps(load(family, saved(official, tmp_path / 'dinov3.pth')), family, weights)


def test_official_swin(tmp_path):
    """Microsoft's files downsample at the end of a stage and hold masks and indices."""
    family = FAMILIES['swin']
    weights = classifier_of(family).state_dict()
    official = {'layers.0.blocks.0.attn.relative_position_index': torch.zeros(49, 49, dtype=torch.long)}
    for name, weight in weights.items():
        name = name.replace('head.fc.', 'head.')
        for stage in (1, 2, 3):
            name = name.replace(f'layers.{stage}.downsample', f'layers.{stage - 1}.downsample')
        official[name] = weight
    assert_same_maps(load(family, saved(dict(model=official)['model'], tmp_path / 'swin.pth')), family, weights)


def test_official_deit3_and_a_pretraining_of_mae(tmp_path, lines):
    for name, rename, more in (
        ('deit3', lambda key: key.replace('ls1.gamma', 'gamma_1').replace('ls2.gamma', 'gamma_2'), {}),
        ('mae', lambda key: key, {'mask_token': torch.zeros(1, 1, 32), 'decoder_blocks.0.norm1.bias': torch.zeros(32)}),
    ):
        weights = classifier_of(FAMILIES[name]).state_dict()
        official = {rename(key): value for key, value in weights.items() if not key.startswith('head')}
        path = saved({**official, **more}, tmp_path / f'{name}.pth')
        assert_same_maps(load(FAMILIES[name], path), FAMILIES[name], weights)
    assert 'left out decoder_blocks.0.norm1.bias' in lines[1][1].replace('timm_model.', '')


def test_official_volo_and_mmpretrains_backbone(tmp_path):
    family = FAMILIES['volo']
    weights = classifier_of(family).state_dict()
    assert_same_maps(load(family, saved(weights, tmp_path / 'd1.pth.tar')), family, weights)
    theirs = {f'backbone.timm_model.{name}': weight for name, weight in weights.items()}
    path = saved(theirs, tmp_path / 'epoch_1.pth')
    assert_same_maps(load(family, path, dict(prefix='backbone.')), family, weights)


def hub_cache(tmp_path, monkeypatch, repo, path):
    """A cache of the Hub with one file, and no network."""
    folder = tmp_path / 'hub' / f'models--{repo.replace("/", "--")}'
    commit = 'a' * 40
    (folder / 'refs').mkdir(parents=True)
    (folder / 'refs' / 'main').write_text(commit)
    target = folder / 'snapshots' / commit / 'model.safetensors'
    target.parent.mkdir(parents=True)
    target.write_bytes(path.read_bytes())
    offline(monkeypatch, tmp_path / 'hub')


def offline(monkeypatch, cache):
    from huggingface_hub import constants

    monkeypatch.setattr(constants, 'HF_HUB_CACHE', str(cache))
    monkeypatch.setattr(constants, 'HF_HUB_OFFLINE', True)
    monkeypatch.setenv('TORCH_HOME', str(cache))


def test_weights_of_the_hub(tmp_path, monkeypatch):
    tag = 'vit_tiny_patch16_224.augreg_in21k_ft_in1k'
    family = FAMILIES['augreg']
    source = timm_model(family, num_classes=1000)
    randomise(source)
    saved(source.state_dict(), tmp_path / 'file.safetensors')
    hub_cache(tmp_path, monkeypatch, f'timm/{tag}', tmp_path / 'file.safetensors')
    assert_same_maps(load(family, f'hf://timm/{tag}/model.safetensors'), family, source.state_dict())
    for options in (dict(model=tag), dict(model='vit_tiny_patch16_224')):
        backbone = TimmBackbone(pretrained=True, model_kwargs=dict(family.kwargs, img_size=96), **options).eval()
        init_weights(backbone)
        assert_same_maps(backbone, family, source.state_dict(), (96, 96))
    grey = TimmBackbone(tag, in_channels=1, pretrained=True, model_kwargs=family.kwargs)
    init_weights(grey)
    wanted = source.patch_embed.proj.weight.sum(1, keepdim=True)
    torch.testing.assert_close(grey.timm_model.patch_embed.proj.weight, wanted)
    wide = TimmBackbone(tag, pretrained=True, model_kwargs=dict(family.kwargs, embed_dim=48))
    with pytest.raises(WeightsError, match='size mismatch|could not be loaded'):
        init_weights(wide)


def test_pretrained_without_weights_or_without_a_network(tmp_path, monkeypatch):
    offline(monkeypatch, tmp_path)
    backbone = TimmBackbone('vit_tiny_patch16_224', pretrained=True, model_kwargs=FAMILIES['augreg'].kwargs)
    with pytest.raises(WeightsError, match='weights of vit_tiny_patch16_224 .*HF_HOME .*init_cfg') as caught:
        init_weights(backbone)
    assert '\n' not in str(caught.value)
    with pytest.raises(CheckpointError, match='HF_HUB_OFFLINE is set'):
        load(FAMILIES['augreg'], 'hf://timm/vit_tiny_patch16_224.augreg_in21k/model.safetensors')
    with pytest.raises(WeightsError, match='names no weights for small_volo. Give a file'):
        init_weights(TimmBackbone('small_volo', pretrained=True))
    with pytest.raises(OptionError, match='give one of them'):
        TimmBackbone('resnet18', pretrained=True, init_cfg=dict(type='addp_mm.Pretrained', checkpoint='a.pth'))


@pytest.mark.parametrize(
    'source, target, message',
    [
        (
            dict(),
            dict(depth=3),
            r'not a checkpoint of vit_tiny_patch16_224: it lacks blocks.2.norm1.weight, .* and 9 more. Give',
        ),
        (
            dict(depth=3),
            dict(),
            r'224: it has blocks.2.norm1.weight, .* and 9 more, which vit_tiny_patch16_224 has not',
        ),
        (dict(embed_dim=64), dict(), r'timm_model.cls_token is \[1, 1, 64\] in the checkpoint and \[1, 1, 32\]'),
        (dict(patch_size=8), dict(), r'patches of 8x8 pixels, and the module has patches of 16x16'),
    ],
)
def test_another_model_is_refused(source, target, message, tmp_path):
    family = FAMILIES['augreg']
    path = saved(classifier_of(family, **source).state_dict(), tmp_path / 'a.pth')
    with pytest.raises(CheckpointError, match=message):
        load(family, path, model_kwargs=target)


def test_weights_of_another_family_are_refused_and_named(tmp_path):
    files = dict(resnet='ResNet', augreg='timm ViT', swin='Swin', convnext='ConvNeXt', volo='VOLO', dinov3='DINOv3 ViT')
    for source, kind in files.items():
        path = saved(classifier_of(FAMILIES[source]).state_dict(), tmp_path / 'a.pth')
        for name in {'resnet': ('mvitv2', 'beitv2'), 'augreg': ('hiera', 'volo')}.get(source, ('resnet', 'convnext')):
            if name != source:
                with pytest.raises(CheckpointError, match=rf'a\.pth: .*The file holds {kind}\.$'):
                    load(FAMILIES[name], path)


def test_patches_and_channels_are_adapted_if_you_ask(tmp_path):
    family = FAMILIES['augreg']
    weights = classifier_of(family, patch_size=32, img_size=448).state_dict()
    path = saved(weights, tmp_path / 'a.pth')
    with pytest.raises(CheckpointError, match='adapt_in_channels=True'):
        load(family, path, in_channels=5, model_kwargs=dict(patch_size=32))
    backbone = load(family, path, dict(resize_patch=True, adapt_in_channels=True), in_channels=1)
    assert backbone.timm_model.patch_embed.proj.weight.shape == (32, 1, 16, 16)


def test_a_file_that_only_lacks_the_last_norm(tmp_path, lines):
    family = FAMILIES['convnext']
    weights = classifier_of(family).state_dict()
    path = saved({key: value for key, value in weights.items() if 'head' not in key}, tmp_path / 'a.pth')
    assert_same_maps(load(family, path), family, weights)
    family = FAMILIES['swin']
    weights = classifier_of(family).state_dict()
    load(
        family, saved({key: value for key, value in weights.items() if not key.startswith('norm')}, tmp_path / 'b.pth')
    )
    assert 'missing timm_model.norm.weight, timm_model.norm.bias (they stay' in lines[1][1]


def test_the_first_blocks_of_a_longer_model(tmp_path, lines):
    family = FAMILIES['augreg']
    weights = classifier_of(family).state_dict()
    backbone = load(family, saved(weights, tmp_path / 'a.pth'), out_indices=0)
    assert torch.equal(backbone.timm_model.blocks[0].norm1.bias, weights['blocks.0.norm1.bias'])
    assert 'left out none' in lines[0][1]


def test_bad_names_and_arguments():
    for options, message in (
        (dict(model='vit_base_patch16_dinov4'), r'no model .vit_base_patch16_dinov4.; did you mean .*dinov3'),
        (dict(model='vit_tiny_patch16_224.augreg'), 'no weights .augreg. of vit_tiny_patch16_224; it has augreg_in21k'),
        (dict(model=''), 'must be the name of a model'),
        (dict(model='resnet18', model_kwargs=dict(dephts=3)), 'cannot build resnet18 .*dephts'),
        (dict(model='resnet18', model_kwargs=dict(in_chans=1)), 'must not have in_chans: use in_channels'),
        (dict(model='resnet18', out_indices=(1, 5)), r'\(1, 5\) must be in \[-5, 4\]: there are 5 depths in resnet18'),
        (dict(model='resnet18', out_indices=(2, 1)), 'must ascend'),
        (dict(model='resnet18', out_indices='0'), "whole numbers of the depths in resnet18, got '0'"),
        (dict(model='resnet18', out_indices=(0.5,)), r'whole numbers.*got \(0.5,\)'),
        (dict(model='resnet18', in_channels=0), 'in_channels must be positive, got 0'),
        (dict(model='resnet18', out_type='cls_token'), 'resnet18 has no class token'),
        (dict(model='resnet18', out_type='raw'), 'needs a plain transformer'),
        (dict(model='resnet18', out_type='map'), 'out_type must be one of'),
        (dict(model='resnet18', frozen_stages=5), r'frozen_stages must be in \[-1, 4\]'),
        (dict(model='poolformer_s12', frozen_stages=0), 'does not say where the stages of poolformer_s12 end'),
        (dict(model='resnet18', drop_path_rate=1.0), r'drop_path_rate must be in \[0, 1\)'),
        (dict(model='byoanet'), 'no model'),
        (dict(model='mvitv2_tiny', model_kwargs=dict(img_size=(64, 96))), r'img_size=\(64, 96\): AssertionError\.'),
    ):
        with pytest.raises(OptionError, match=message):
            TimmBackbone(**options)


def test_a_model_without_intermediate_features(monkeypatch):
    monkeypatch.delattr(timm.models.resnet.ResNet, 'forward_intermediates')
    with pytest.raises(OptionError, match='resnet18 of timm gives no intermediate features'):
        TimmBackbone('resnet18')


def test_images_that_cannot_be_processed():
    with torch.device('meta'):
        with pytest.raises(ValueError, match='31x200 pixels is smaller than the stride 32 of resnet18'):
            TimmBackbone('resnet18')(torch.empty(1, 3, 31, 200))
        TimmBackbone('resnet18', out_indices=(1, 2))(torch.empty(1, 3, 31, 200))
        with pytest.raises(ValueError, match=r'made for 224x224 pixels.*img_size=\(256, 224\)'):
            TimmBackbone('coatnet_0_rw_224')(torch.empty(1, 3, 256, 224))
        with pytest.raises(ValueError, match='convolutions cut off the borders'):
            TimmBackbone('inception_v3')(torch.empty(1, 3, 256, 256))
