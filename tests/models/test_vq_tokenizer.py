# Copyright (c) addp_mm contributors. Apache-2.0.
"""The VQ tokenizer: residual blocks, layout, quantisation."""

import pytest
import torch
import torch.nn.functional as F

from addp_mm.models.tokenizers import VQTokenizer, conv_layers
from addp_mm.models.tokenizers.conv_layers import ResidualBlock

NANO = dict(
    stem_stride=4,
    base_channels=32,
    channel_mults=(1, 2),
    num_res_blocks=1,
    num_mid_blocks=1,
    codebook_size=32,
    embed_dims=8,
)


def test_residual_block_shortcuts_its_output():
    torch.manual_seed(0)
    block = ResidualBlock(32, 64)
    x = torch.randn(1, 32, 5, 5)
    hidden = F.conv2d(F.silu(F.group_norm(x, 32, eps=1e-6)), block.conv1.weight, padding=1)
    hidden = F.conv2d(F.silu(F.group_norm(hidden, 32, eps=1e-6)), block.conv2.weight, padding=1)
    expected = hidden + torch.einsum('oi,bihw->bohw', block.shortcut.weight[..., 0, 0], hidden)
    torch.testing.assert_close(block(x), expected)
    assert block.conv1.bias is block.conv2.bias is block.shortcut.bias is None


def test_published_layout():
    with torch.device('meta'):
        tokenizer = VQTokenizer()
    assert tokenizer.stride == 16
    assert tokenizer.codebook.shape == (1024, 256)
    assert [level[0].conv2.out_channels for level in tokenizer.encoder.levels] == [128, 128, 256, 256, 512]
    assert tokenizer.encoder.conv_in.bias is None
    assert all(len(level) == 2 for level in [*tokenizer.encoder.levels, *tokenizer.decoder.levels])


@pytest.mark.parametrize('normalize', [False, True])
def test_quantize_finds_the_nearest_code(normalize):
    torch.manual_seed(0)
    tokenizer = VQTokenizer(**NANO, normalize_codes=normalize)
    torch.nn.init.normal_(tokenizer.codes.weight)
    latents = tokenizer.encode_continuous(torch.rand(2, 3, 32, 48))
    ids = tokenizer.quantize(latents)
    assert ids.shape == (2, 4 * 6)
    assert ids.dtype == torch.int64
    for image, row in zip(latents, ids, strict=True):
        for position, code in enumerate(row):
            distances = (tokenizer.codebook - image[:, position // 6, position % 6]).norm(dim=1)
            assert distances[code] <= distances.min() + 1e-5
    if normalize:
        torch.testing.assert_close(latents.norm(dim=1), torch.ones(2, 4, 6))
        torch.testing.assert_close(tokenizer.codebook.norm(dim=1), torch.ones(32))


def test_lookup_is_row_major_and_encode_agrees():
    torch.manual_seed(0)
    tokenizer = VQTokenizer(**NANO)
    ids, latents = tokenizer.encode(torch.rand(1, 3, 16, 32))
    torch.testing.assert_close(latents[0, :, 1, 2], tokenizer.codebook[ids[0, 1 * 4 + 2]])
    assert tokenizer.decode(latents).shape == (1, 3, 16, 32)


def test_the_stem_folds_pixels_into_channels():
    """pixel_shuffle is the inverse of pixel_unshuffle."""
    images = torch.rand(1, 3, 8, 8)
    torch.testing.assert_close(F.pixel_shuffle(F.pixel_unshuffle(images, 4), 4), images)
    tokenizer = VQTokenizer(**NANO)
    assert tokenizer.encoder.conv_in.in_channels == 3 * 16
    assert tokenizer.decoder.conv_out.out_channels == 3 * 16
    assert tokenizer.stride == 8


def test_bad_arguments():
    with pytest.raises(ValueError, match='multiple of num_groups=32'):
        VQTokenizer(base_channels=48)
    with pytest.raises(ValueError, match=r'36x32 px.*stride 8'):
        VQTokenizer(**NANO).encode(torch.rand(1, 3, 36, 32))


@pytest.mark.parametrize('options', [{}, dict(mid_attn=True, attn_levels=(0,), downsample='conv'), dict(stem_stride=1)])
def test_channels_last_changes_neither_results_nor_gradients(options, monkeypatch):
    """Every convolution of the CPU gets a channels-last map, in the backward pass too.

    The gradient of the last one comes from outside of the decoder.
    """
    torch.manual_seed(0)
    tokenizer = VQTokenizer(**dict(NANO, **options))
    images = torch.rand(2, 3, 48, 32)
    formats = []

    def note(_layer, maps):
        formats.extend(x.is_contiguous(memory_format=torch.channels_last) for x in maps)

    def step(dtype=torch.float32):
        tokenizer.to(dtype).zero_grad()
        ids, latents = tokenizer.encode(images.to(dtype))
        reconstructions = tokenizer.decode(tokenizer.encode_continuous(images.to(dtype)))
        (reconstructions - images).square().mean().backward()
        gradients = [value.grad for value in tokenizer.parameters() if value.grad is not None]
        return [ids, latents, reconstructions, tokenizer.decode(latents), *gradients]

    hooks = []
    for layer in tokenizer.modules():
        if isinstance(layer, torch.nn.Conv2d):
            hooks.append(layer.register_forward_pre_hook(note))
            if layer is not tokenizer.decoder.conv_out:
                hooks.append(layer.register_full_backward_pre_hook(note))
    ids, *found = step()
    assert len(formats) > 40
    assert all(formats)
    for hook in hooks:
        hook.remove()
    monkeypatch.setattr(conv_layers, '_fast_format', lambda x: x.contiguous())
    plain_ids, *plain = step()
    exact_ids, *exact = step(torch.float64)
    assert torch.equal(ids, plain_ids)
    assert torch.equal(ids, exact_ids)
    for ours, other, wanted in zip(found, plain, exact, strict=True):
        # Both round. The group norm of channels-last maps sums squares in float32, the other one in
        # parts: 5e-5 of the largest value, and no more than what float32 has of tiny gradients.
        rounding = 5e-5 * wanted.abs().max() + 1e-8
        assert (ours - wanted).abs().max() <= rounding
        assert (other - wanted).abs().max() <= rounding


@pytest.mark.parametrize('bias', [True, False])
def test_a_convolution_of_a_doubled_map_needs_no_doubled_map(bias):
    torch.manual_seed(0)
    conv = torch.nn.Conv2d(5, 7, 3, padding=1, bias=bias).double()
    maps = torch.rand(2, 5, 4, 3, dtype=torch.float64, requires_grad=True)
    inputs = (maps, *conv.parameters())
    ours = conv_layers._conv_of_doubled(conv, maps)
    plain = conv(F.interpolate(maps, scale_factor=2, mode='nearest'))
    torch.testing.assert_close(ours, plain, rtol=1e-12, atol=1e-12)
    slope = torch.rand_like(plain)
    for one, other in zip(
        torch.autograd.grad(ours, inputs, slope), torch.autograd.grad(plain, inputs, slope), strict=True
    ):
        torch.testing.assert_close(one, other, rtol=1e-12, atol=1e-12)
