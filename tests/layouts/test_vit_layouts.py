# Copyright (c) addp_mm contributors. Apache-2.0.
"""Published ViTs in ADDPViT give the features of timm's and mmpretrain's own models."""

import re

import pytest
import torch
from timm.models.beit import Beit, checkpoint_filter_fn
from timm.models.deit import VisionTransformerDistilled
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from addp_mm.conversion.originals.vit import original_features
from addp_mm.layouts import find_layout
from addp_mm.layouts.vit_weights import num_heads_of, vit_args
from addp_mm.models.backbones import ADDPViT

SIZES = dict(img_size=32, patch_size=8, embed_dim=24, depth=3, num_heads=3, mlp_ratio=2.0, num_classes=5)


def randomised(model: nn.Module) -> nn.Module:
    """Random parameters: a default value could hide a missing key."""
    generator = torch.Generator().manual_seed(0)
    for name, parameter in model.named_parameters():
        nn.init.normal_(
            parameter, mean=1.0 if 'norm' in name and name.endswith('weight') else 0.0, std=0.2, generator=generator
        )
    model.eval()  # mmpretrain's eval() returns None
    return model


def convert(source: dict[str, Tensor], name: str, num_heads: int = 3, **options) -> ADDPViT:
    """ADDPViT with the weights, loaded strictly, through the layout of that name."""
    layout = find_layout(source)
    assert layout is not None
    assert layout.name == name
    assert layout.component == 'backbone'
    before = {key: value.clone() for key, value in source.items()}
    args = {**layout.build_args(source), **options}
    assert 'num_heads' not in args['arch']
    vit = ADDPViT(**{**args, 'arch': dict(args['arch'], num_heads=num_heads)})
    vit.load_state_dict(layout.convert(source), strict=True)
    assert all(torch.equal(source[key], value) for key, value in before.items())
    return vit.eval()


def original(source: dict[str, Tensor], image: Tensor, **options) -> Tensor | None:
    """Features of the original implementation, as the converter computes them."""
    layout = find_layout(source)
    args = {**layout.build_args(source), **options}
    return original_features(layout, source, {**args, 'arch': dict(args['arch'], num_heads=3)}, image)


def close(actual: Tensor, expected: Tensor) -> None:
    assert expected.std() > 0.1
    torch.testing.assert_close(actual, expected, rtol=0, atol=1e-5)


@pytest.fixture
def image():
    return torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(1))


def mae_decoder() -> dict[str, Tensor]:
    """The decoder of a MAE pre-training file."""
    decoder = VisionTransformer(**{**SIZES, 'depth': 1, 'embed_dim': 12}).state_dict()
    extra = {f'decoder_{key}': value for key, value in decoder.items() if key.startswith(('blocks', 'norm', 'pos'))}
    linear = {f'decoder_{name}.{part}': torch.rand(3) for name in ('embed', 'pred') for part in ('weight', 'bias')}
    return {**extra, **linear, 'mask_token': torch.rand(1, 1, 12)}


# name of the layout, options of timm's VisionTransformer, additional tensors of the published file,
# other names of its keys
VITS = {
    'AugReg': ('timm ViT', {}, {}, {}),
    'MAE with its decoder': ('MAE', dict(num_classes=0), mae_decoder(), {}),
    'MAE with its mask token alone': ('MAE', dict(num_classes=0), dict(mask_token=torch.rand(1, 1, 12)), {}),
    'MAE encoder alone': ('timm ViT', dict(num_classes=0), {}, {}),
    'DeiT III': ('timm ViT', dict(no_embed_class=True, init_values=1e-6), {}, {r'ls(\d)\.gamma': r'gamma_\1'}),
    'DeiT III of timm': ('timm ViT', dict(no_embed_class=True, init_values=1e-6), {}, {}),
    'DINOv2': ('DINOv2', dict(num_classes=0, init_values=1e-5), dict(mask_token=torch.rand(1, 24)), {}),
    'DINOv2 in chunks': (
        'DINOv2',
        dict(num_classes=0, init_values=1e-5),
        dict(mask_token=torch.rand(1, 24)),
        {r'blocks\.([01])\.': r'blocks.0.\1.', r'blocks\.2\.': 'blocks.1.2.'},
    ),
    'CLIP': ('timm ViT', dict(pre_norm=True), {}, {}),
    'registers of timm': ('timm ViT', dict(reg_tokens=4, no_embed_class=True), {}, {}),
    'registers with positions': ('timm ViT', dict(reg_tokens=2), {}, {}),
    'no biases of qkv': ('timm ViT', dict(qkv_bias=False), {}, {}),
}


@pytest.mark.parametrize('case', VITS)
def test_tokens_equal_timm(case, image):
    name, options, extra, renamed = VITS[case]
    reference = randomised(VisionTransformer(**{**SIZES, **options}))
    source = dict(reference.state_dict(), **extra)
    for pattern, new in renamed.items():
        source = {re.sub(pattern, new, key): value for key, value in source.items()}
    vit = convert(source, name, out_type='raw')
    close(vit(image)[0], reference.forward_features(image))
    close(original(source, image), reference.forward_features(image))
    assert vit.grid_size == (4, 4)
    assert num_heads_of(vit.state_dict()) is None


def test_dinov2_with_registers_in_its_own_naming(image):
    reference = randomised(
        VisionTransformer(**{**SIZES, 'num_classes': 0}, init_values=1e-5, reg_tokens=4, no_embed_class=True)
    )
    source = dict(reference.state_dict())
    # published: a separate position of the class token, another name of the register tokens
    row = torch.full((1, 1, 24), 0.25)
    source.update(
        cls_token=source['cls_token'] - row,
        pos_embed=torch.cat([row, source['pos_embed']], dim=1),
        register_tokens=source.pop('reg_token'),
        mask_token=torch.rand(1, 24),
    )
    close(convert(source, 'DINOv2', out_type='raw')(image)[0], reference.forward_features(image))
    close(original(source, image), reference.forward_features(image))


def test_the_distillation_token_of_deit_becomes_a_register(image):
    reference = randomised(VisionTransformerDistilled(**SIZES))
    vit = convert(reference.state_dict(), 'timm ViT', out_type='raw')
    close(vit(image)[0], reference.forward_features(image))
    close(original(reference.state_dict(), image), reference.forward_features(image))


def test_a_vit_without_a_class_token(image):
    reference = randomised(VisionTransformer(**SIZES, class_token=False, global_pool='map'))
    vit = convert(reference.state_dict(), 'timm ViT')
    close(vit(image)[0].flatten(2).transpose(1, 2), reference.forward_features(image))


def test_a_finetuned_mae_gives_the_input_of_its_head(image):
    reference = randomised(VisionTransformer(**SIZES, global_pool='avg'))
    assert 'fc_norm.weight' in reference.state_dict()
    assert 'norm.weight' not in reference.state_dict()
    vit = convert(reference.state_dict(), 'timm ViT')
    assert vit.out_type == 'avg_featmap'
    expected = reference.forward_head(reference.forward_features(image), pre_logits=True)
    close(vit(image)[0], expected)
    close(original(reference.state_dict(), image), expected)


@pytest.mark.parametrize('table', ['each', 'shared'])
@pytest.mark.parametrize('pool', ['', 'avg'])
def test_beit_equals_timm(image, table, pool):
    reference = randomised(
        Beit(
            **SIZES,
            global_pool=pool,
            init_values=0.1,
            use_abs_pos_emb=False,
            use_rel_pos_bias=table == 'each',
            use_shared_rel_pos_bias=table == 'shared',
        )
    )
    with torch.no_grad():
        for name, parameter in reference.named_parameters():
            if 'relative_position_bias_table' in name:
                parameter.mul_(5)
    # buffers in published files, and layers of BEiT v2's pre-training
    index = dict.fromkeys(
        (
            'blocks.0.attn.relative_position_index',
            'rel_pos_bias.relative_position_index',
            'mask_token',
            'lm_head.weight',
            'cls_pt_layers.0.norm1.weight',
        ),
        torch.zeros(1),
    )
    source = dict(reference.state_dict(), **index)
    vit = convert(source, 'BEiT', **({} if pool else dict(out_type='raw')))
    assert vit.pos_embed is None
    assert num_heads_of(vit.state_dict()) == 3
    features = reference.forward_features(image)
    expected = reference.forward_head(features, pre_logits=True) if pool else features
    close(vit(image)[0], expected)
    close(original(source, image), expected)


def test_beit_with_absolute_positions_too(image):
    reference = randomised(Beit(**SIZES, global_pool='', use_rel_pos_bias=True))
    close(convert(reference.state_dict(), 'BEiT', out_type='raw')(image)[0], reference.forward_features(image))


@pytest.mark.parametrize('options', [{}, dict(init_values=0.1, reg_tokens=2, no_embed_class=True)])
def test_maps_at_another_image_size_equal_timm(options):
    reference = randomised(VisionTransformer(**SIZES, **options, dynamic_img_size=True))
    image = torch.rand(1, 3, 48, 24)
    expected = reference.forward_intermediates(image, indices=[0, 2], intermediates_only=True)
    vit = convert(reference.state_dict(), 'timm ViT', out_type='featmap', out_indices=(0, 2), pos_antialias=True)
    vit.final_norm = nn.Identity()
    for actual, wanted in zip(vit(image), expected, strict=True):
        close(actual, wanted)


def test_beit_at_another_image_size_equals_timm():
    # In timm the smallest ratio of the geometric series is 1.01.
    options = dict(SIZES, global_pool='', use_abs_pos_emb=False, use_rel_pos_bias=True)
    source = randomised(Beit(**{**options, 'img_size': 64})).state_dict()
    larger = Beit(**{**options, 'img_size': 128}).eval()
    larger.load_state_dict(checkpoint_filter_fn(source, larger), strict=True)
    image = torch.rand(1, 3, 128, 128)
    vit = convert(source, 'BEiT', out_type='raw')
    # timm's ratio of the geometric series is only accurate to 1e-6
    torch.testing.assert_close(vit(image)[0], larger.forward_features(image), rtol=0, atol=1e-4)
    loaded = convert(source, 'BEiT', out_type='raw', img_size=128)
    close(loaded(image)[0], vit(image)[0])


def test_unknown_keys_are_named():
    for name, (layout, options, extra, _) in VITS.items():
        source = dict(VisionTransformer(**{**SIZES, **options}).state_dict(), **extra)
        source.update({'blocks.1.attn.q_norm.weight': torch.ones(8), 'stranger': torch.ones(1)})
        with pytest.raises(ValueError, match=r'2 keys .*blocks\.1\.attn\.q_norm\.weight, stranger'):
            find_layout(source).convert(source)
        assert find_layout(source).name == layout, name


@pytest.mark.parametrize('key,shape', [('blocks.0.mlp.w12.weight', (8, 24)), ('blocks.0.mlp.fc1.weight', (96, 24))])
def test_gated_mlps_are_refused(key, shape):
    source = dict(VisionTransformer(**SIZES, init_values=1.0).state_dict(), mask_token=torch.ones(1, 24))
    source[key] = torch.rand(shape)
    with pytest.raises(ValueError, match=f'{key}.*SwiGLU'):
        find_layout(source).convert(source)


def test_positions_that_are_not_square_need_the_image_size():
    reference = randomised(VisionTransformer(**{**SIZES, 'img_size': (32, 64)}))
    layout = find_layout(reference.state_dict())
    with pytest.raises(ValueError, match='give the image size'):
        layout.build_args(reference.state_dict())
    weights = layout.convert(reference.state_dict())
    assert vit_args(weights, (32, 64))['img_size'] == (32, 64)
    with pytest.raises(ValueError, match='img_size 32 x 32 does not fit'):
        vit_args(weights, (32, 32))


@pytest.mark.parametrize(
    'own, options',
    [
        (0, dict(no_embed_class=True, init_values=1e-6)),
        (1, {}),
        (3, dict(reg_tokens=2)),
        (0, dict(reg_tokens=2, no_embed_class=True)),
    ],
)
def test_the_grid_decides_how_positions_are_read(own, options):
    """A class token and 3 x 5 patches have as many positions as 4 x 4 patches."""
    reference = randomised(VisionTransformer(**{**SIZES, **options, 'img_size': (24, 40)}))
    source, image = reference.state_dict(), torch.rand(1, 3, 24, 40)
    layout = find_layout(source)
    assert source['pos_embed'].shape[1] == own + 15
    weights = layout.convert(source, grid=(3, 5))
    args = layout.build_args(source, grid=(3, 5))
    vit = ADDPViT(**{**args, 'arch': dict(args['arch'], num_heads=3), 'out_type': 'raw'}).eval()
    vit.load_state_dict(weights, strict=True)
    close(vit(image)[0], reference.forward_features(image))
    if own == 1:
        assert layout.convert(source)['pos_embed'].shape[1] == 17  # read as DeiT III of 4 x 4 patches
        square = VisionTransformer(**SIZES, no_embed_class=True).state_dict()
        assert layout.build_args(square, grid=(4, 4))['img_size'] == (32, 32)
    with pytest.raises(ValueError, match=f'the {own + 15} positions do not fit 4 x 5 patches'):
        layout.convert(source, grid=(4, 5))


def test_registers_and_positions_that_are_not_square_need_the_grid():
    source = VisionTransformer(**{**SIZES, 'img_size': (16, 40)}, reg_tokens=2).state_dict()
    with pytest.raises(ValueError, match=r'13 positions.*the 2 registers.*pos_grid=\(height, width\).*--img-size'):
        find_layout(source).convert(source)


@pytest.mark.parametrize('name, mark', [('MAE', mae_decoder()), ('DINOv2', dict(mask_token=torch.rand(1, 24)))])
def test_positions_with_a_class_token_are_not_read_as_a_square(name, mark):
    options = dict(num_classes=0, init_values=1e-5 if name == 'DINOv2' else None, img_size=(24, 40))
    source = {**VisionTransformer(**{**SIZES, **options}).state_dict(), **mark}
    layout = find_layout(source)
    assert layout.name == name
    assert layout.convert(source)['pos_embed'].shape[1] == 16
    with pytest.raises(ValueError, match='do not form a square map: give the image size'):
        layout.build_args(source)
    assert layout.build_args(source, grid=(3, 5))['img_size'] == (24, 40)


@pytest.mark.parametrize('width,depth,heads', [(768, 12, 12), (1024, 24, 16), (1280, 32, 16), (768, 8, None)])
def test_heads_of_standard_architectures(width, depth, heads):
    weights = {f'blocks.{i}.norm1.weight': torch.ones(1) for i in range(depth)}
    weights['patch_embed.projection.weight'] = torch.empty(width, 3, 1, 1)
    assert num_heads_of(weights) == heads


def test_widths_of_mlps_that_do_not_divide():
    source = VisionTransformer(**{**SIZES, 'embed_dim': 21, 'mlp_ratio': 55 / 21}).state_dict()
    hidden = len(source['blocks.0.mlp.fc1.weight'])
    args = find_layout(source).build_args(source)
    assert int(21 * args['arch']['mlp_ratio']) == hidden


@pytest.mark.parametrize(
    'name,options,wrapped',
    [
        ('VisionTransformer', dict(), False),
        ('VisionTransformer', dict(pre_norm=True, layer_scale_init_value=0.1), True),
        ('VisionTransformer', dict(out_type='avg_featmap', final_norm=False), True),
        ('DeiT3', dict(), False),
        ('BEiTViT', dict(out_type='raw'), False),
        ('BEiTViT', dict(use_rel_pos_bias=False, use_shared_rel_pos_bias=True), True),
    ],
)
def test_mmpretrain_backbones(image, name, options, wrapped):
    from mmpretrain.models import backbones

    options = {'out_type': 'cls_token', **options} if name != 'BEiTViT' else options
    reference = randomised(
        getattr(backbones, name)(
            arch=dict(embed_dims=24, num_layers=3, num_heads=3, feedforward_channels=48),
            img_size=32,
            patch_size=8,
            **options,
        )
    )
    source = dict(reference.state_dict())
    if name == 'DeiT3':  # mmpretrain 1.2 applies ln1 before the MLP too; the results agree if ln2 equals ln1
        source = {key: source[key.replace('.ln2.', '.ln1.')] for key in source}
    if wrapped:
        source = {f'backbone.{key}': value for key, value in source.items()}
        source.update({'neck.decoder_pred.weight': torch.ones(1), 'head.fc.weight': torch.ones(1)})
    vit = convert(source, 'mmpretrain ViT')
    vit.out_type = reference.out_type
    close(vit(image)[0], reference(image)[0])
    theirs = original(source, image, out_type=reference.out_type)
    assert (theirs is None) == (name == 'DeiT3')
    if theirs is not None:
        close(theirs, reference(image)[0])
