# Copyright (c) addp_mm contributors. Apache-2.0.
"""TokenEncoder: a frozen tokenizer and the predictor's encoder on ids, as a backbone."""

import copy

import pytest
import torch
from helpers import random_mage as mage
from helpers import random_vqgan as vqgan
from helpers.recipes import load_recipe

from addp_mm.diffusion.token_space import TokenSpace
from addp_mm.layouts.key_rules import without_prefix
from addp_mm.layouts.mage import MAGE, convert_mage
from addp_mm.layouts.vqgan import MASKGIT
from addp_mm.models.backbones import TokenEncoder
from addp_mm.models.layers import ImageSizeError, OptionError, resize_pos_embed
from addp_mm.models.predictors import MaskedTokenPredictor
from addp_mm.models.tokenizers import VQTokenizer
from addp_mm.registry import MODELS

SPACE = TokenSpace(codebook_size=32, num_class_slots=2, fake_class_slot=1)
TOKENIZER = dict(type='addp_mm.VQTokenizer', base_channels=32, channel_mults=(1, 1), codebook_size=32, embed_dims=8)
ARCH = dict(embed_dims=16, num_layers=3, num_heads=2)


def build(**options) -> TokenEncoder:
    """A tiny backbone of stride 2 for 8 px, 4 x 4 tokens."""
    options = (
        dict(tokenizer=TOKENIZER, arch=ARCH, img_size=8, vocab_size=SPACE.vocab_size, fake_class_id=SPACE.fake_class_id)
        | options
    )
    return MODELS.build(dict(type='addp_mm.TokenEncoder', **options))


def predictor_of(num_tokens=16) -> MaskedTokenPredictor:
    return MaskedTokenPredictor(num_tokens, 16, 3, 2, decoder_num_layers=1, drop_rate=0.0, token_space=SPACE)


def encoder_states(predictor, ids) -> torch.Tensor:
    """The encoder of the predictor, seen by its decoder: nothing is masked."""
    seen = []
    hook = predictor.decoder_embed.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    predictor(ids, torch.zeros_like(ids, dtype=torch.bool))
    hook.remove()
    return seen[0]


@pytest.fixture
def images():
    return torch.randn(2, 3, 8, 8)


def test_it_equals_the_encoder_of_the_predictor_on_the_ids(images, tmp_path):
    predictor = predictor_of().eval()
    torch.save(predictor.state_dict(), tmp_path / 'predictor.pth')
    init_cfg = dict(type='addp_mm.Pretrained', checkpoint=str(tmp_path / 'predictor.pth'))
    outputs = {}
    for out_type in ('raw', 'featmap', 'cls_token', 'avg_featmap'):
        torch.manual_seed(1)  # the same tokenizer
        backbone = build(out_type=out_type, init_cfg=init_cfg)
        backbone.init_weights()
        (outputs[out_type],) = backbone.eval()(images)
    # the tokenizer gets images in [0, 1] again
    pixels = images * torch.tensor([0.229, 0.224, 0.225]).view(3, 1, 1)
    pixels = (pixels + torch.tensor([0.485, 0.456, 0.406]).view(3, 1, 1)).clamp(0, 1)
    ids, _ = backbone.tokenizer.encode(pixels)
    assert len(ids.unique()) > 1
    states = encoder_states(predictor, ids)
    torch.testing.assert_close(outputs['raw'], states)
    torch.testing.assert_close(outputs['cls_token'], states[:, 0])
    torch.testing.assert_close(outputs['featmap'].flatten(2).mT, states[:, 1:])
    mean = predictor.norm  # ADDPViT too applies the norm to the mean
    blocks = build(out_type='raw', final_norm=False, tokenizer=backbone.tokenizer, init_cfg=init_cfg)
    blocks.init_weights()
    torch.testing.assert_close(outputs['avg_featmap'], mean(blocks.eval()(images)[0][:, 1:].mean(1)))


def test_blocks_and_strides_are_known_before_the_forward_pass():
    backbone = build(out_indices=(0, 2)).eval()
    maps = backbone(torch.randn(1, 3, 12, 8))
    assert [x.shape[1] for x in maps] == list(backbone.out_channels) == [16, 16]
    assert [12 // x.shape[2] for x in maps] == [8 // x.shape[3] for x in maps] == list(backbone.out_strides) == [2, 2]
    assert len(build(out_indices=(0, 1)).encoder.blocks) == 2
    assert build().in_channels == 3


@pytest.mark.parametrize('size', [(8, 8), (16, 8), (10, 22)])
def test_any_size_of_the_tokenizer(size):
    backbone = build().eval()
    backbone.check_image_size(*size)
    (features,) = backbone(torch.randn(1, 3, *size))
    assert features.shape == (1, 16, size[0] // 2, size[1] // 2)


def test_positions_are_resized_for_another_size(images):
    """A backbone for the other size, with resized positions, gives the same."""
    small, large = build(), build(img_size=(16, 24))
    state = small.state_dict()
    state['encoder.pos_embed'] = resize_pos_embed(state['encoder.pos_embed'], (4, 4), (8, 12), num_prefix_tokens=1)
    large.load_state_dict(state)
    images = torch.randn(1, 3, 16, 24)
    torch.testing.assert_close(small.eval()(images)[0], large.eval()(images)[0])


def test_a_size_that_the_tokenizer_does_not_take_is_refused():
    with pytest.raises(ImageSizeError, match='9x8 px cannot be tokenized'):
        build().check_image_size(9, 8)
    with pytest.raises(ImageSizeError, match='multiples of the tokenizer'):
        build()(torch.randn(1, 3, 9, 8))


def test_the_tokenizer_is_frozen_and_gradients_reach_the_whole_encoder(images):
    backbone = build().train()
    before = copy.deepcopy(backbone.tokenizer.state_dict())
    assert backbone.training
    assert not any(part.training for part in backbone.tokenizer.modules())
    assert not any(parameter.requires_grad for parameter in backbone.tokenizer.parameters())
    backbone(images)[0].square().sum().backward()
    assert [name for name, parameter in backbone.encoder.named_parameters() if parameter.grad is None] == []
    assert all(parameter.grad is None for parameter in backbone.tokenizer.parameters())
    torch.optim.SGD(backbone.parameters(), 1.0).step()
    torch.testing.assert_close(backbone.tokenizer.state_dict(), before, rtol=0, atol=0)


@pytest.mark.parametrize('stages', [0, 2, 3])
def test_frozen_stages(stages):
    backbone = build(frozen_stages=stages, drop_rate=0.1).train()
    frozen = [f'encoder.{name}' for name in ('word_embed', 'pos_embed', 'embed_norm')]
    frozen += [f'encoder.blocks.{i}.' for i in range(stages)] + (['encoder.norm'] if stages == 3 else [])
    for name, parameter in backbone.named_parameters():
        assert parameter.requires_grad == (not name.startswith(('tokenizer', *frozen))), name
    assert [block.training for block in backbone.encoder.blocks] == [i >= stages for i in range(3)]
    assert not backbone.encoder.embed_drop.training


def test_checkpointing_gives_the_same_gradients(images):
    plain = build()
    saving = build(with_cp=True)
    saving.load_state_dict(plain.state_dict())
    gradients = []
    for backbone in (plain, saving):
        backbone.train()(images)[0].square().sum().backward()
        gradients.append([parameter.grad for parameter in backbone.encoder.parameters()])
    torch.testing.assert_close(*gradients)


def test_depths_for_layer_decay():
    backbone = build()
    depths = {name: backbone.get_layer_depth(f'backbone.{name}', 'backbone.')[0] for name in backbone.state_dict()}
    assert {depth for name, depth in depths.items() if name.startswith('tokenizer')} == {0}
    assert depths['encoder.word_embed.weight'] == depths['encoder.pos_embed'] == depths['encoder.embed_norm.bias'] == 0
    assert [depths[f'encoder.blocks.{i}.mlp.fc1.weight'] for i in range(3)] == [1, 2, 3]
    assert depths['encoder.norm.weight'] == 4
    assert backbone.get_layer_depth('head.fc.weight', 'backbone.') == (4, 5)


def test_half_precision_leaves_the_tokenizer_in_float32(images):
    backbone = build().eval()
    ids, _ = backbone.tokenize(images)
    with torch.autocast('cpu', torch.bfloat16):
        assert torch.equal(backbone.tokenize(images)[0], ids)
        assert backbone(images)[0].isfinite().all()


@pytest.mark.parametrize(
    'options, message',
    [
        (dict(fake_class_id=31), 'must follow the 32 codes'),
        (dict(vocab_size=33), 'less than vocab_size=33'),
        (dict(out_type='tokens'), 'out_type must be one of'),
        (dict(frozen_stages=4), r'frozen_stages must be in \[-1, 3\]'),
        (dict(drop_path_rate=1.0), 'drop_path_rate'),
        (dict(out_indices=3), r'out_indices \(3,\) must be in'),
        (dict(img_size=9), 'must be multiples of patch_size 2'),
        (dict(pixel_mean=(0.5,)), 'one number for each of 3 channels'),
    ],
)
def test_options_that_do_not_fit(options, message):
    with pytest.raises(OptionError, match=message):
        build(**options)


def test_stochastic_depth_grows_over_all_blocks_of_the_architecture():
    rates = [block.drop_path.drop_prob for block in build(drop_path_rate=0.2).encoder.blocks]
    assert rates == pytest.approx([0.0, 0.1, 0.2])


def test_the_nano_config_fits_the_shipped_predictor_and_tokenizer(capsys):
    """Ids of the config are those of the predictor's token space; all weights of both are found."""
    cfg = load_recipe('_base_/models/token-encoder_nano-p8.py')
    predictor = load_recipe('_base_/models/token-predictor_nano-p8.py')
    space = TokenSpace.of(predictor.token_space)
    assert (cfg.token_encoder.vocab_size, cfg.token_encoder.fake_class_id) == (space.vocab_size, space.fake_class_id)
    backbone = MODELS.build(cfg.token_encoder)
    assert isinstance(backbone.tokenizer, VQTokenizer)
    backbone.init_weights()
    log = capsys.readouterr().out
    assert 'PredictorEncoder from addp_mm://token-predictor_nano-p8.safetensors: loaded 54, resized none' in log
    assert log.count('missing none') == 2
    assert 'WARNING' not in log


def test_one_file_of_mage_gives_the_encoder_and_the_tokenizer(tmp_path):
    torch.manual_seed(0)
    sizes = vqgan.Sizes(taming=False, mults=(1, 1), attn_levels=(), codes=mage.CODES)
    checkpoint = mage.random_state_dict()
    checkpoint |= {f'vqgan.{key}': value for key, value in vqgan.random_state_dict(sizes).items()}
    path = str(tmp_path / 'mage.pth')
    torch.save(dict(model=checkpoint), path)
    args, space = MAGE.build_args(checkpoint), TokenSpace(mage.CODES)
    tokenizer_args = MASKGIT.build_args(without_prefix(checkpoint, 'vqgan.'))
    tokenizer = dict(type='addp_mm.VQTokenizer', **tokenizer_args)
    tokenizer['init_cfg'] = dict(type='addp_mm.Pretrained', checkpoint=path, prefix='vqgan.', strict=True)
    backbone = build(
        tokenizer=tokenizer,
        arch=dict(embed_dims=args['embed_dims'], num_layers=args['num_layers'], num_heads=mage.HEADS),
        img_size=6,  # 3 x 3 tokens of stride 2
        vocab_size=space.vocab_size,
        fake_class_id=space.fake_class_id,
        out_type='raw',
        init_cfg=dict(type='addp_mm.Pretrained', checkpoint=path),
    )
    backbone.init_weights()
    predictor = MaskedTokenPredictor(**args, num_heads=mage.HEADS, decoder_num_heads=mage.DECODER_HEADS).eval()
    predictor.load_state_dict(convert_mage(checkpoint))
    images = torch.randn(2, 3, 6, 6)
    ids, hw = backbone.tokenize(images)
    assert hw == (3, 3)
    torch.testing.assert_close(backbone.eval()(images)[0], encoder_states(predictor, ids))
