# Copyright (c) addp_mm contributors. Apache-2.0.
"""Options of other VQGANs; tests/layouts/test_vqgan.py compares their numbers."""

import pytest
import torch

from addp_mm.models.tokenizers import VQTokenizer
from addp_mm.models.tokenizers.conv_layers import ConvOptions, SpatialAttention

SMALL = dict(base_channels=32, channel_mults=(1, 1), num_res_blocks=1, codebook_size=8, embed_dims=4)


def test_defaults_keep_the_published_state_dict():
    keys = set(VQTokenizer(**SMALL).state_dict())
    assert not any(part in key for key in keys for part in ('attn', 'quant_conv', 'downsamples', 'conv1.bias'))
    assert 'encoder.conv_in.bias' not in keys


def test_each_option_adds_its_parameters():
    plain = set(VQTokenizer(**SMALL).state_dict())

    def added(**options):
        return set(VQTokenizer(**SMALL, **options).state_dict()) - plain

    assert added(downsample='conv') == {'encoder.downsamples.0.weight', 'encoder.downsamples.0.bias'}
    assert 'encoder.conv_in.bias' in added(conv_bias=True)
    assert 'decoder.mid.1.conv2.bias' in added(conv_bias=True)
    assert {key.split('.')[0] for key in added(quant_conv=True)} == {'quant_conv', 'post_quant_conv'}
    assert {key.split('.attn')[0] for key in added(mid_attn=True)} == {'encoder.mid.0', 'decoder.mid.0'}
    # the decoder counts its levels from the coarsest
    assert {key.split('.attn')[0] for key in added(attn_levels=[1])} == {'encoder.levels.1.0', 'decoder.levels.0.0'}


@torch.no_grad()
def test_input_range_and_inner_channels():
    options = dict(SMALL, quant_conv=True, z_channels=6)
    inside, outside = VQTokenizer(**options), VQTokenizer(**options, input_range=[-1, 1])
    outside.load_state_dict(inside.state_dict())
    images = torch.rand(1, 3, 8, 8)
    assert inside.encoder.conv_out.out_channels == inside.decoder.conv_in.in_channels == 6
    assert torch.equal(outside.encode_continuous(images), inside.encode_continuous(images * 2 - 1))
    latents = torch.randn(1, 4, 4, 4)
    torch.testing.assert_close(outside.decode(latents), (inside.decode(latents) + 1) / 2)


@torch.no_grad()
def test_a_strided_convolution_pads_right_and_bottom():
    """The first row and column are without padding."""
    tokenizer = VQTokenizer(**SMALL, downsample='conv')
    tokenizer.encoder.downsamples[0].weight.fill_(1.0)
    halved = tokenizer.encoder._halve(torch.ones(1, 32, 4, 4), 0) - tokenizer.encoder.downsamples[0].bias.view(-1, 1, 1)
    expected = torch.tensor([[9.0, 6.0], [6.0, 4.0]]) * 32
    torch.testing.assert_close(halved[0, 0], expected)


@torch.no_grad()
def test_attention_over_all_positions_with_one_head():
    attention = SpatialAttention(64, ConvOptions()).eval()
    x = torch.randn(2, 64, 3, 5)
    normed = attention.norm(x).flatten(2)
    query, key, value = (
        torch.einsum('oi,bil->bol', conv.weight[..., 0, 0], normed) + conv.bias[:, None]
        for conv in (attention.q, attention.k, attention.v)
    )
    weights = (query.transpose(1, 2) @ key / 8).softmax(-1)
    expected = x + attention.proj((value @ weights.transpose(1, 2)).unflatten(2, (3, 5)))
    torch.testing.assert_close(attention(x), expected)


def test_all_options_train():
    tokenizer = VQTokenizer(
        **SMALL,
        shortcut_from='input',
        conv_bias=True,
        downsample='conv',
        attn_levels=(0, 1),
        mid_attn=True,
        encoder_out_kernel=3,
        quant_conv=True,
        z_channels=6,
        input_range=(-1, 1),
    )
    latents = tokenizer.encode_continuous(torch.rand(2, 3, 8, 8))
    (tokenizer.decode(latents).square().mean() + tokenizer.codes.weight.square().mean()).backward()
    assert all(parameter.grad is not None for parameter in tokenizer.parameters())


def test_groups_other_than_32():
    tokenizer = VQTokenizer(**dict(SMALL, base_channels=24), num_groups=8)
    assert tokenizer.encoder.norm_out.num_groups == 8
    assert tokenizer(torch.rand(1, 3, 8, 8)).shape == (1, 3, 8, 8)


@pytest.mark.parametrize(
    'options, words',
    [
        (dict(shortcut_from='middle'), "'output' or 'input', got 'middle'"),
        (dict(downsample='max'), "'avg' or 'conv', got 'max'"),
        (dict(encoder_out_kernel=5), '1 or 3, got 5'),
        (dict(attn_levels=(16,)), 'levels 0 .finest. to 1 .*not resolutions'),
        (dict(attn_levels=(1, 1)), 'each once'),
        (dict(mid_attn=True, num_mid_blocks=0), 'num_mid_blocks is 0'),
        (dict(z_channels=6), 'z_channels=6 .*quant_conv=True'),
        (dict(input_range=(1, -1)), 'black < white'),
        (dict(input_range=(0, 0.5, 1)), 'black < white'),
        (dict(num_groups=12), 'multiple of num_groups=12 channels'),
    ],
)
def test_options_that_contradict_each_other_are_refused(options, words):
    with pytest.raises(ValueError, match=words):
        VQTokenizer(**dict(SMALL, **options))
