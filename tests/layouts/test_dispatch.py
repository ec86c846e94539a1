# Copyright (c) addp_mm contributors. Apache-2.0.
"""Each kind of published checkpoint has exactly one layout; this package's weights have none."""

import ast
import json
from pathlib import Path

import numpy as np
import pytest
import torch
import torchvision
from helpers.random_vqgan import Sizes, random_state_dict

from addp_mm import layouts
from addp_mm.checkpoints.reading import ASSETS, load_checkpoint_file
from addp_mm.checkpoints.state_dict import find_state_dict
from addp_mm.layouts import LAYOUTS, Layout, find_layout, find_prefixes
from addp_mm.models.backbones import ADDPViT

REFERENCE = Path(__file__).parents[1] / 'data' / 'published_reference.npz'
SIZES = dict(img_size=16, patch_size=8, embed_dim=8, depth=1, num_heads=2)
ARCH = dict(embed_dims=8, num_layers=1, num_heads=2, feedforward_channels=16)


def published():
    """Names and shapes of the reduced published ADDP of the parity tests."""
    with np.load(REFERENCE, allow_pickle=False) as file:
        shapes = json.loads(file['header'].tobytes())['shapes']
    return {name: torch.empty(shape, device='meta') for name, shape in shapes.items()}


def part(prefix):
    return {name[len(prefix) :]: weight for name, weight in published().items() if name.startswith(prefix)}


def without(*starts):
    return {name: weight for name, weight in published().items() if not name.startswith(starts)}


def timm_vit(**options):
    from timm.models.vision_transformer import VisionTransformer

    return VisionTransformer(**SIZES, **options).state_dict()


def timm_beit(**options):
    from timm.models.beit import Beit

    return Beit(**SIZES, **options).state_dict()


def volo(**options):
    from timm.models.volo import VOLO

    sizes = dict(layers=[1, 1, 1, 1], img_size=16, stem_hidden_dim=4, embed_dims=[8] * 4, num_heads=[2] * 4)
    return VOLO(**sizes, **options).state_dict()


def mmpretrain(name, prefix='', **options):
    from mmpretrain.models import backbones

    state = getattr(backbones, name)(arch=ARCH, img_size=16, patch_size=8, **options).state_dict()
    return {prefix + key: value for key, value in state.items()}


def mae():
    names = (
        'decoder_pos_embed',
        'mask_token',
        *(f'decoder_{layer}.{kind}' for layer in ('embed', 'norm', 'pred') for kind in ('weight', 'bias')),
    )
    return {**timm_vit(num_classes=0), **{name: torch.ones(1) for name in names}}


def more(state, *names):
    return {**state, **{name: torch.ones(1, 1) for name in names}}


KINDS = {
    'whole ADDP': (published, 'ADDP', 'model'),
    'ADDP encoder': (lambda: without('vqgan', 'token_', 'decoder_', 'mlm_', 'mask_token'), 'ADDP encoder', 'backbone'),
    'ADDP encoder and decoder': (lambda: without('vqgan', 'token_predictor'), 'ADDP encoder', 'backbone'),
    'MAGE': (
        lambda: {**part('token_predictor.'), **{f'vqgan.{k}': v for k, v in part('vqgan.').items()}},
        'MAGE',
        'predictor',
    ),
    'MAGE predictor alone': (lambda: part('token_predictor.'), 'MAGE', 'predictor'),
    'MaskGIT VQGAN': (lambda: part('vqgan.'), 'MaskGIT VQGAN', 'tokenizer'),
    'taming VQGAN': (lambda: random_state_dict(Sizes()), 'taming VQGAN', 'tokenizer'),
    'taming VQGAN with its loss': (
        lambda: more(random_state_dict(Sizes()), 'loss.discriminator.main.0.weight'),
        'taming VQGAN',
        'tokenizer',
    ),
    'MAE with decoder': (mae, 'MAE', 'backbone'),
    'MAE encoder with its mask token': (lambda: more(timm_vit(num_classes=0), 'mask_token'), 'MAE', 'backbone'),
    'MAE encoder': (lambda: timm_vit(num_classes=0), 'timm ViT', 'backbone'),
    'MAE fine-tuned': (lambda: timm_vit(global_pool='avg'), 'timm ViT', 'backbone'),
    'DINOv2': (lambda: more(timm_vit(num_classes=0, init_values=1.0), 'mask_token'), 'DINOv2', 'backbone'),
    'DINOv2 with registers': (
        lambda: more(timm_vit(num_classes=0, init_values=1.0), 'mask_token', 'register_tokens'),
        'DINOv2',
        'backbone',
    ),
    'DINOv2 in chunks': (
        lambda: {
            key.replace('blocks.0.', 'blocks.0.0.'): value
            for key, value in timm_vit(num_classes=0, init_values=1.0).items()
        },
        'DINOv2',
        'backbone',
    ),
    'DINOv2 of timm': (lambda: timm_vit(num_classes=0, init_values=1.0, reg_tokens=4), 'timm ViT', 'backbone'),
    'DeiT III': (
        lambda: {
            key.replace('ls1.gamma', 'gamma_1').replace('ls2.gamma', 'gamma_2'): value
            for key, value in timm_vit(init_values=1.0, no_embed_class=True).items()
        },
        'timm ViT',
        'backbone',
    ),
    'AugReg': (timm_vit, 'timm ViT', 'backbone'),
    'BEiT pre-trained': (
        lambda: more(
            timm_beit(use_shared_rel_pos_bias=True, use_abs_pos_emb=False),
            'mask_token',
            'lm_head.weight',
            'lm_head.bias',
        ),
        'BEiT',
        'backbone',
    ),
    'BEiT fine-tuned': (lambda: timm_beit(use_rel_pos_bias=True, use_abs_pos_emb=False), 'BEiT', 'backbone'),
    'BEiT v2 pre-trained': (
        lambda: more(
            timm_beit(use_shared_rel_pos_bias=True, use_abs_pos_emb=False),
            'mask_token',
            'cls_pt_layers.0.norm1.weight',
            'cls_pt_norm.weight',
        ),
        'BEiT',
        'backbone',
    ),
    'mmpretrain ViT': (lambda: mmpretrain('VisionTransformer'), 'mmpretrain ViT', 'backbone'),
    'mmpretrain classifier': (
        lambda: more(mmpretrain('VisionTransformer', 'backbone.'), 'head.fc.weight'),
        'mmpretrain ViT',
        'backbone',
    ),
    'mmpretrain MAE': (
        lambda: more(mmpretrain('VisionTransformer', 'backbone.'), 'neck.mask_token'),
        'mmpretrain ViT',
        'backbone',
    ),
    'VOLO': (lambda: volo(num_classes=3), 'VOLO', 'model'),
    'VOLO without heads': (lambda: volo(num_classes=0), 'VOLO', 'model'),
    'mmpretrain BEiT': (lambda: mmpretrain('BEiTViT'), 'mmpretrain ViT', 'backbone'),
}


@pytest.mark.parametrize('kind', KINDS)
def test_exactly_one_layout_matches(kind):
    make, name, component = KINDS[kind]
    state = make()
    assert [layout.name for layout in LAYOUTS if layout.matches(state)] == [name]
    assert find_layout(state).component == component
    assert find_layout(state, [component]).name == name


def test_every_layout_has_a_kind():
    assert {name for _, name, _ in KINDS.values()} == {layout.name for layout in LAYOUTS}
    assert len({layout.name for layout in LAYOUTS}) == len(LAYOUTS)


def test_every_file_of_layouts_is_listed():
    known = {id(layout) for layout in LAYOUTS}
    for path in Path(layouts.__file__).parent.glob('*.py'):
        module = f'addp_mm.layouts.{path.stem}'
        names = [
            target.id
            for node in ast.parse(path.read_text()).body
            if isinstance(node, ast.Assign)
            for target in node.targets
            if isinstance(target, ast.Name)
        ]
        found = [getattr(__import__(module, fromlist=['*']), name) for name in names if path.stem != '__init__']
        assert all(id(value) in known for value in found if isinstance(value, Layout)), module


@pytest.mark.parametrize(
    'make',
    [
        lambda: ADDPViT(
            dict(embed_dims=8, num_layers=2, num_heads=2),
            img_size=16,
            patch_size=8,
            pre_norm=True,
            use_rel_pos_table=True,
            layer_scale_init=1.0,
        ).state_dict(),
        *(
            lambda name=name: find_state_dict(load_checkpoint_file(ASSETS / name))
            for name in (
                'addp_nano-p8.safetensors',
                'token-predictor_nano-p8.safetensors',
                'vq-tokenizer_nano-p8.safetensors',
            )
        ),
        lambda: torchvision.models.resnet18().state_dict(),
        dict,
    ],
)
def test_our_own_and_unknown_names_match_nothing(make):
    assert find_layout(make()) is None


def test_chunks_with_blocks_of_the_same_number_are_refused():
    source = timm_vit(num_classes=0)
    for chunk in (0, 1):
        source = {**source, **{key.replace('blocks.0.', f'blocks.{chunk}.0.'): value for key, value in source.items()}}
    source = {key: value for key, value in source.items() if not key.startswith('blocks.0.') or '0.0.' in key}
    with pytest.raises(ValueError, match='two chunks have a block of the same number'):
        find_layout(source).convert(source)


def test_prefixes_with_a_known_layout():
    vit, tokenizer = timm_vit(), random_state_dict(Sizes())
    state = {
        **{f'teacher.backbone.{key}': value for key, value in vit.items()},
        **{f'first_stage_model.{key}': value for key, value in tokenizer.items()},
        'step': torch.ones(1),
    }
    found = {prefix: layout.name for prefix, layout in find_prefixes(state).items()}
    assert found == {'teacher.backbone.': 'timm ViT', 'first_stage_model.': 'taming VQGAN'}
    assert list(find_prefixes(state, ['backbone'])) == ['teacher.backbone.']
    assert find_prefixes(vit) == {}
