# Copyright (c) addp_mm contributors. Apache-2.0.
"""addp_mm.Pretrained converts checkpoints of other projects, or refuses them with the reason."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from mmengine.logging import MMLogger
from timm.models.beit import Beit
from timm.models.vision_transformer import VisionTransformer

from addp_mm.checkpoints.errors import CheckpointError
from addp_mm.layouts import find_layout
from addp_mm.models.backbones import ADDPViT
from addp_mm.models.necks import TokenDecoder
from addp_mm.models.predictors import MaskedTokenPredictor
from addp_mm.models.pretrained import Pretrained
from addp_mm.models.tokenizers import VQTokenizer

REFERENCE = Path(__file__).parents[1] / 'data' / 'published_reference.npz'
SIZES = dict(img_size=32, patch_size=8, embed_dim=24, depth=2, num_heads=3, mlp_ratio=2.0)
ARCH = dict(embed_dims=24, num_layers=2, num_heads=3, mlp_ratio=2.0)


def randomised(model):
    return {
        name: torch.randn(weight.shape) if weight.is_floating_point() else weight
        for name, weight in model.state_dict().items()
    }


def saved(tmp_path, state, prefix=''):
    path = tmp_path / 'theirs.pth'
    torch.save(dict(model={prefix + name: weight for name, weight in state.items()}), path)
    return str(path)


@pytest.fixture
def report(monkeypatch):
    lines = []
    logger = MMLogger.get_instance('test_pretrained_layouts')
    monkeypatch.setattr(logger, 'handle', lambda record: lines.append((record.levelname, record.msg)))
    return lines


@pytest.fixture(scope='module')
def published():
    """Random weights with the published names, and the sizes of the parity tests."""
    with np.load(REFERENCE, allow_pickle=False) as file:
        shapes = json.loads(file['header'].tobytes())['shapes']
    generator = torch.Generator().manual_seed(0)
    return {name: torch.randn(shape, generator=generator) for name, shape in shapes.items()}


def test_the_grid_decides_whether_the_class_token_has_a_position(tmp_path):
    """A class token and 3 x 5 patches have as many positions as the 4 x 4 patches of a DeiT III."""
    state = randomised(VisionTransformer(**{**SIZES, 'img_size': (24, 40)}))
    vit = ADDPViT(ARCH, img_size=(24, 40), patch_size=8)
    Pretrained(saved(tmp_path, state), pos_grid=(3, 5))(vit)
    assert torch.equal(vit.pos_embed, state['pos_embed'])
    with pytest.raises(CheckpointError, match=r'theirs\.pth.*the 16 positions do not fit 5 x 5 patches'):
        Pretrained(saved(tmp_path, state), pos_grid=(5, 5))(vit)


@pytest.mark.parametrize(
    'prefix, given', [('', None), ('', ''), ('teacher.backbone.', 'teacher.backbone'), ('model.', 'model.')]
)
def test_a_timm_vit_is_converted_and_resized(tmp_path, report, prefix, given):
    state = randomised(VisionTransformer(**SIZES))
    vit = ADDPViT(ARCH, img_size=(48, 32), patch_size=8)
    Pretrained(saved(tmp_path, state, prefix), prefix=given)(vit)
    assert torch.equal(vit.patch_embed.projection.weight, state['patch_embed.proj.weight'])
    assert torch.equal(vit.blocks[1].mlp.fc2.bias, state['blocks.1.mlp.fc2.bias'])
    assert torch.equal(vit.final_norm.weight, state['norm.weight'])
    assert torch.equal(vit.pos_embed[:, 0], state['pos_embed'][:, 0])
    assert vit.pos_embed.shape[1] == 25
    level, line = report[-1]
    assert level == 'INFO'
    assert f'converted from the layout of timm ViT ({len(state)} tensors' in line
    assert 'resized pos_embed (1, 17, 24) -> (1, 25, 24)' in line
    assert 'left out none, missing none' in line


def test_the_report_for_the_backbone_of_a_detector(tmp_path, report):
    vit = ADDPViT(
        ARCH,
        img_size=64,
        patch_size=8,
        with_cls_token=False,
        window_size=2,
        global_blocks=(1,),
        use_rel_pos=True,
        out_type='featmap',
    )
    Pretrained(saved(tmp_path, randomised(VisionTransformer(**SIZES))))(vit)
    level, line = report[-1]
    assert level == 'INFO'
    assert 'left out cls_token (not in the module)' in line
    assert 'missing blocks.0.attn.rel_pos_h' in line


def test_a_prefix_reaches_another_mapping_of_the_file(tmp_path):
    state = randomised(VisionTransformer(**SIZES))
    torch.save(dict(model=dict(step=torch.ones(1)), model_ema=state), tmp_path / 'theirs.pth')
    vit = ADDPViT(ARCH, img_size=32, patch_size=8)
    Pretrained(str(tmp_path / 'theirs.pth'), prefix='model_ema')(vit)
    assert torch.equal(vit.patch_embed.projection.weight, state['patch_embed.proj.weight'])


def test_a_vit_of_an_unknown_layout_is_refused(tmp_path):
    """Names of blocks and positions match by accident. The rest would stay random."""
    state = randomised(VisionTransformer(**SIZES))
    stem = {name.replace('patch_embed.proj', 'stem'): weight for name, weight in state.items()}
    blocks = {name.replace('blocks.', 'layers.'): weight for name, weight in state.items()}
    for changed, lacking in ((stem, r'patch_embed\.\*'), (blocks, r'patch_embed\.\* and no blocks\.\*')):
        with pytest.raises(CheckpointError, match=rf'has no {lacking} for ADDPViT.*Unexpected are \w+'):
            Pretrained(saved(tmp_path, changed))(ADDPViT(ARCH, img_size=32, patch_size=8))


def test_a_patch_embedding_may_be_left_out_on_purpose(tmp_path, report):
    source = ADDPViT(ARCH, img_size=32, patch_size=8)
    state = {name: weight for name, weight in source.state_dict().items() if not name.startswith('patch_embed.')}
    vit = ADDPViT(ARCH, img_size=32, patch_size=8, in_channels=5)
    Pretrained(saved(tmp_path, state))(vit)
    assert torch.equal(vit.blocks[0].mlp.fc1.weight, source.blocks[0].mlp.fc1.weight)
    assert 'missing patch_embed.projection.weight, patch_embed.projection.bias' in report[-1][1]


def test_a_weight_that_a_loaded_block_lacks_is_a_warning(tmp_path, report):
    state = randomised(VisionTransformer(**SIZES))
    del state['blocks.1.mlp.fc2.bias']
    Pretrained(saved(tmp_path, state))(ADDPViT(ARCH, img_size=32, patch_size=8))
    assert report[-1][0] == 'WARNING'
    assert 'Weights of loaded blocks were left out or are missing (blocks.1.mlp.fc2.bias)' in report[-1][1]


def test_the_right_prefix_is_named(tmp_path):
    path = saved(tmp_path, randomised(VisionTransformer(**SIZES)), 'model.')
    with pytest.raises(CheckpointError, match=r"no weight matches.*the layout of timm ViT under the prefix 'model\.'"):
        Pretrained(path)(ADDPViT(ARCH, img_size=32, patch_size=8))


@pytest.mark.slow
def test_mmpretrain_keeps_its_prefix(tmp_path):
    from mmpretrain.models.backbones import VisionTransformer as ViT

    state = randomised(
        ViT(arch=dict(embed_dims=24, num_layers=2, num_heads=3, feedforward_channels=48), img_size=32, patch_size=8)
    )
    path = saved(tmp_path, state, 'backbone.')
    for prefix in ('backbone.', None):
        vit = ADDPViT(ARCH, img_size=32, patch_size=8)
        Pretrained(path, prefix=prefix, strict=True)(vit)
        assert torch.equal(vit.blocks[0].norm2.bias, state['layers.0.ln2.bias'])
    own = ViT(arch=dict(embed_dims=24, num_layers=2, num_heads=3, feedforward_channels=48), img_size=32, patch_size=8)
    Pretrained(path, prefix='backbone.', strict=True)(own)
    assert all(torch.equal(weight, state[name]) for name, weight in own.state_dict().items())


@pytest.mark.parametrize(
    'part, kind',
    [('backbone', ADDPViT), ('tokenizer', VQTokenizer), ('predictor', MaskedTokenPredictor), ('neck', TokenDecoder)],
)
def test_each_component_of_a_published_addp(tmp_path, published, part, kind):
    path, layout = saved(tmp_path, published), find_layout(published)
    args = layout.build_args(published)[part]
    args.pop('type', None)
    if kind is ADDPViT:
        args['arch'] = dict(args['arch'], num_heads=3)
    elif kind is MaskedTokenPredictor:
        args.update(num_heads=4, decoder_num_heads=4)
    elif kind is TokenDecoder:
        args.update(num_heads=4)
    converted = layout.convert(published)
    for prefix in (None, f'{part}.'):
        module = kind(**args)
        Pretrained(path, prefix=prefix, strict=True)(module)
        assert all(torch.equal(weight, converted[f'{part}.{name}']) for name, weight in module.state_dict().items())


def test_a_tokenizer_from_mage_and_by_its_prefix(tmp_path, published):
    args = find_layout(published).build_args(published)['tokenizer']
    args.pop('type', None)
    mage = {
        name.removeprefix('token_predictor.'): weight
        for name, weight in published.items()
        if name.startswith(('token_predictor.', 'vqgan.'))
    }
    for state, prefix in ((mage, 'vqgan.'), (published, 'vqgan.')):
        tokenizer = VQTokenizer(**args)
        Pretrained(saved(tmp_path, state), prefix=prefix, strict=True)(tokenizer)
        assert torch.equal(tokenizer.codes.weight, published['vqgan.quantize.embedding.weight'])


def test_a_predictor_is_not_loaded_into_a_backbone(tmp_path, published):
    # MAGE's encoder has the names of a ViT, but its inputs are token ids.
    mage = {
        name.removeprefix('token_predictor.'): weight
        for name, weight in published.items()
        if name.startswith('token_predictor.')
    }
    vit = ADDPViT(dict(embed_dims=48, num_layers=2, num_heads=4), img_size=64, patch_size=8)
    assert set(vit.state_dict()) & set(mage)
    with pytest.raises(CheckpointError, match=r'layout of MAGE, which is for a predictor\. ADDPViT is a backbone'):
        Pretrained(saved(tmp_path, mage))(vit)


def test_modules_of_another_kind_are_refused(tmp_path, published):
    path = saved(tmp_path, randomised(VisionTransformer(**SIZES)))
    with pytest.raises(CheckpointError, match='layout of timm ViT'):
        Pretrained(path)(
            VQTokenizer(
                **{
                    key: value
                    for key, value in find_layout(published).build_args(published)['tokenizer'].items()
                    if key != 'type'
                }
            )
        )
    with pytest.raises(
        CheckpointError, match='no weight matches Linear.*layout of timm ViT.*only converted to a backbone'
    ):
        Pretrained(path)(torch.nn.Linear(2, 2))
    with pytest.raises(CheckpointError, match=r"starts with 'backbone\.'.*timm ViT without a prefix"):
        Pretrained(path, prefix='backbone.')(torch.nn.Linear(2, 2))


def test_unknown_keys_are_an_error(tmp_path):
    path = saved(tmp_path, {**randomised(VisionTransformer(**SIZES)), 'stranger': torch.ones(1)})
    with pytest.raises(CheckpointError, match=r'theirs\.pth has the layout of timm ViT and cannot be.*stranger'):
        Pretrained(path)(ADDPViT(ARCH, img_size=32, patch_size=8))


def test_for_another_width_the_message_has_the_right_arguments(tmp_path):
    path = saved(tmp_path, randomised(VisionTransformer(**SIZES)))
    with pytest.raises(
        CheckpointError, match=r'\[24\] in the checkpoint(.|\n)*made for arch=.*24.*img_size=\(32, 32\)'
    ):
        Pretrained(path)(ADDPViT({**ARCH, 'embed_dims': 48}, img_size=32, patch_size=8))


def test_another_patch_size_is_refused_or_resized_on_request(tmp_path, report):
    state = randomised(VisionTransformer(**{**SIZES, 'img_size': 56, 'patch_size': 14}))
    path = saved(tmp_path, state)
    for options in (dict(), dict(strict=True)):
        with pytest.raises(
            CheckpointError,
            match=r'patches of 14x14 pixels.*patches of 16x16.*patch_size=14.*'
            r'resize_patch=True',
        ):
            Pretrained(path, **options)(ADDPViT(ARCH, img_size=64, patch_size=16))
    source, target = ADDPViT(ARCH, img_size=56, patch_size=14), ADDPViT(ARCH, img_size=64, patch_size=16)
    Pretrained(path)(source)
    Pretrained(path, resize_patch=True)(target)
    assert 'patch_embed.projection.weight (24, 3, 14, 14) -> (24, 3, 16, 16)' in report[-1][1]
    patches = torch.rand(2, 3, 14, 14)
    larger = torch.nn.functional.interpolate(patches, size=16, mode='bilinear', antialias=True)
    ours, theirs = (vit.patch_embed.projection(x) for vit, x in ((target, larger), (source, patches)))
    torch.testing.assert_close(ours, theirs, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize('shared', [True, False])
def test_beits_tables_are_resized_and_a_module_without_them_warns(tmp_path, report, shared):
    state = randomised(
        Beit(**SIZES, use_abs_pos_emb=False, use_shared_rel_pos_bias=shared, use_rel_pos_bias=not shared)
    )
    path = saved(tmp_path, state)
    vit = ADDPViT(
        ARCH, img_size=(32, 48), patch_size=8, use_rel_pos_table=True, use_abs_pos=False, layer_scale_init=None
    )
    with torch.no_grad():
        Pretrained(path, strict=True)(vit)
    assert 'resized blocks.0.attn.rel_pos_bias_table (52, 3) -> (80, 3)' in report[-1][1]
    assert report[-1][0] == 'INFO'
    plain = ADDPViT(ARCH, img_size=32, patch_size=8)
    Pretrained(path)(plain)
    level, line = report[-1]
    assert level == 'WARNING'
    assert 'Weights of loaded blocks were left out or are missing (blocks.0.attn.rel_pos_bias_table' in line
    assert 'use_rel_pos_table=True' in line
    assert 'use_abs_pos=False' in line


def test_mmpretrains_own_beit_at_another_size(tmp_path, report):
    """mmpretrain resizes with a function that SciPy no longer has, so the table is resized
    before."""
    from mmpretrain.models.backbones import BEiTViT

    arch = dict(embed_dims=24, num_layers=1, num_heads=3, feedforward_channels=48)
    source = BEiTViT(arch=arch, img_size=32, patch_size=8)
    torch.nn.init.normal_(source.layers[0].attn.relative_position_bias_table)
    target = BEiTViT(arch=arch, img_size=48, patch_size=8)
    index = target.layers[0].attn.relative_position_index.clone()
    Pretrained(saved(tmp_path, source.state_dict()))(target)
    table, old = (vit.layers[0].attn.relative_position_bias_table for vit in (target, source))
    assert torch.equal(table[-3:], old[-3:])
    assert torch.equal(table[60], old[24])
    assert torch.equal(target.layers[0].attn.relative_position_index, index)
    assert 'kept its own layers.0.attn.relative_position_index' in report[-1][1]
