# Copyright (c) addp_mm contributors. Apache-2.0.
"""Attention, windows and relative positions against plain computations."""

import math

import pytest
import torch
from torch import nn

from addp_mm.models.layers import Attention, Block, LN2d, PatchEmbed, init_transformer_weights, resize_pos_embed
from addp_mm.models.layers.rel_pos import rel_pos_bias, resize_rel_pos
from addp_mm.models.layers.rel_pos_table import rel_pos_table_bias, resize_rel_pos_table
from addp_mm.models.layers.window import window_partition, window_unpartition


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


def plain_attention(attn: Attention, x: torch.Tensor, hw=None, prefix: int = 0) -> torch.Tensor:
    """Attention head by head and position by position, from the definition."""
    b, n, c = x.shape
    qkv = attn.qkv(x)
    dims = c // attn.num_heads
    out = torch.zeros(b, n, c, dtype=x.dtype)
    for head in range(attn.num_heads):
        at = slice(head * dims, (head + 1) * dims)
        q, k, v = (qkv[..., i * c : (i + 1) * c][..., at] for i in range(3))
        scores = q @ k.transpose(1, 2) / math.sqrt(dims)
        if hw is not None:
            h, w = hw
            for i in range(h * w):
                for j in range(h * w):
                    row = attn.rel_pos_h[i // w - j // w + h - 1] + attn.rel_pos_w[i % w - j % w + w - 1]
                    scores[:, prefix + i, prefix + j] += q[:, prefix + i] @ row
        out[..., at] = scores.softmax(dim=-1) @ v
    return attn.proj(out)


@pytest.mark.parametrize('qkv_bias', [True, False])
def test_attention_equals_its_definition(qkv_bias):
    attn = Attention(24, 3, qkv_bias=qkv_bias).double()
    assert (attn.qkv.bias is not None) == qkv_bias
    x = torch.rand(2, 7, 24, dtype=torch.double)
    torch.testing.assert_close(attn(x), plain_attention(attn, x), rtol=0, atol=1e-12)


@pytest.mark.parametrize('prefix', [0, 1])
def test_relative_positions_equal_a_plain_loop(prefix):
    attn = Attention(24, 3, rel_pos_size=(3, 4)).double()
    nn.init.normal_(attn.rel_pos_h)
    nn.init.normal_(attn.rel_pos_w)
    x = torch.rand(2, prefix + 12, 24, dtype=torch.double)
    torch.testing.assert_close(attn(x, (3, 4)), plain_attention(attn, x, (3, 4), prefix), rtol=0, atol=1e-12)


def test_relative_positions_start_at_zero_and_learn():
    attn = Attention(24, 3, rel_pos_size=(3, 4))
    assert attn.rel_pos_h.shape == (5, 8)
    assert attn.rel_pos_w.shape == (7, 8)
    assert not attn.rel_pos_h.any()
    assert not attn.rel_pos_w.any()
    attn(torch.rand(2, 12, 24), (3, 4)).square().sum().backward()
    assert attn.rel_pos_h.grad.any()
    assert attn.rel_pos_w.grad.any()


def test_relative_positions_of_another_size_are_resized():
    table = torch.arange(5.0)[:, None].repeat(1, 2)
    assert resize_rel_pos(table, 5) is table
    resized = resize_rel_pos(table, 9)
    assert resized.shape == (9, 2)
    expected = ((torch.arange(9) + 0.5) * 5 / 9 - 0.5).clamp(0, 4)  # half-pixel centres of a straight line
    torch.testing.assert_close(resized[:, 0], expected)
    query = torch.rand(1, 1, 25, 2)
    same = rel_pos_bias(query, resize_rel_pos(table, 9), resize_rel_pos(table, 9), (5, 5))
    torch.testing.assert_close(rel_pos_bias(query, table, table, (5, 5)), same)


def test_half_precision_scores_do_not_overflow():
    attn = Attention(8, 1, qkv_bias=False)
    with torch.no_grad():
        attn.qkv.weight.copy_(torch.eye(8).repeat(3, 1))
        attn.proj.weight.copy_(torch.eye(8))
    x = 300 * torch.eye(8)[None]  # scores of 9e4 before scaling are beyond the range of float16
    expected = attn(x)
    got = attn.half()(x.half())
    torch.testing.assert_close(got.float(), expected, rtol=1e-3, atol=1e-3)


def test_attention_dropout_only_while_training():
    attn = Attention(24, 3, attn_drop_rate=0.5)
    x = torch.rand(2, 7, 24)
    assert not torch.equal(attn(x), attn(x))
    attn.eval()
    assert torch.equal(attn(x), attn(x))
    torch.testing.assert_close(attn(x), plain_attention(attn, x))


def test_relative_positions_need_a_map():
    with pytest.raises(ValueError, match='needs hw'):
        Attention(24, 3, rel_pos_size=(3, 4))(torch.rand(1, 12, 24))


def test_heads_must_divide_the_width():
    with pytest.raises(ValueError, match='embed_dims 24 .* num_heads 5'):
        Attention(24, 5)


@pytest.mark.parametrize('hw,window', [((4, 6), 2), ((5, 7), 3), ((3, 3), 4)])
def test_windows_are_joined_to_the_same_map(hw, window):
    x = torch.rand(2, *hw, 5)
    windows, padded = window_partition(x, window)
    assert windows.shape == (2 * math.ceil(hw[0] / window) * math.ceil(hw[1] / window), window, window, 5)
    assert torch.equal(windows[0, : hw[0], : hw[1]], x[0, :window, :window])
    assert torch.equal(window_unpartition(windows, padded, hw), x)


def test_a_window_over_the_whole_map_is_full_attention():
    full, windowed = Block(24, 3), Block(24, 3, window_size=4)
    windowed.load_state_dict(full.state_dict())
    x = torch.rand(2, 16, 24)
    torch.testing.assert_close(windowed(x, (4, 4)), full(x))


def test_windows_do_not_see_each_other():
    block = Block(24, 3, window_size=2).eval()
    x = torch.rand(1, 16, 24)
    changed = x.clone().unflatten(1, (4, 4))
    changed[:, :2, :2] += 1
    differs = (block(changed.flatten(1, 2), (4, 4)) != block(x, (4, 4))).any(dim=-1).reshape(4, 4)
    assert differs[:2, :2].all()
    assert differs.sum() == 4


def test_incomplete_windows_are_padded_with_zeros():
    block = Block(24, 3, window_size=3, rel_pos_size=(9, 9)).eval()
    assert block.attn.rel_pos_h.shape == (5, 8)
    x = torch.rand(1, 8, 24)
    filled = torch.zeros(1, 3, 6, 24)
    filled[:, :2, :4] = block.norm1(x).reshape(1, 2, 4, 24)
    parts = [block.attn(filled[:, :, i : i + 3].flatten(1, 2), (3, 3)).reshape(1, 3, 3, 24) for i in (0, 3)]
    y = x + torch.cat(parts, dim=2)[:, :2, :4].flatten(1, 2)
    torch.testing.assert_close(block(x, (2, 4)), y + block.mlp(block.norm2(y)))


def test_block_needs_a_map_that_fits():
    x = torch.rand(1, 17, 24)
    assert Block(24, 3)(x).shape == x.shape
    assert Block(24, 3, rel_pos_size=(4, 4))(x, (4, 4)).shape == x.shape
    with pytest.raises(ValueError, match='needs hw'):
        Block(24, 3, window_size=2)(x)
    with pytest.raises(ValueError, match='17 tokens do not fit a map of 4 x 4: a block with windows'):
        Block(24, 3, window_size=2)(x, (4, 4))
    with pytest.raises(ValueError, match='17 tokens do not fit a map of 5 x 4'):
        Block(24, 3, rel_pos_size=(4, 4))(x, (5, 4))
    with pytest.raises(ValueError, match='window_size'):
        Block(24, 3, window_size=-1)


def test_ln2d_normalises_the_channels_of_each_position():
    norm, x = LN2d(6), torch.rand(2, 6, 3, 4)
    nn.init.normal_(norm.weight)
    mean, var = x.mean(1, keepdim=True), x.var(1, unbiased=False, keepdim=True)
    expected = (x - mean) / (var + 1e-6).sqrt() * norm.weight[:, None, None]
    torch.testing.assert_close(norm(x), expected)


def cubic(distance: torch.Tensor, a: float = -0.75) -> torch.Tensor:
    """Keys' kernel."""
    d = distance.abs()
    near = (a + 2) * d**3 - (a + 3) * d**2 + 1
    far = a * d**3 - 5 * a * d**2 + 8 * a * d - 4 * a
    return torch.where(d <= 1, near, torch.where(d < 2, far, torch.zeros_like(d)))


def resize_matrix(old: int, new: int) -> torch.Tensor:
    """Bicubic resizing of a line as a matrix (new, old), borders repeated."""
    centres = (torch.arange(new, dtype=torch.double) + 0.5) * old / new - 0.5
    matrix = torch.zeros(new, old, dtype=torch.double)
    for i, centre in enumerate(centres):
        first = int(centre.floor()) - 1
        for index in range(first, first + 4):
            matrix[i, min(max(index, 0), old - 1)] += cubic(centre - index)
    return matrix


@pytest.mark.parametrize('dst', [(6, 3), (8, 8), (4, 9)])
def test_positions_resize_bicubically_height_and_width_apart(dst):
    table = torch.rand(1, 1 + 4 * 5, 3)
    old = table[0, 1:].double().reshape(4, 5, 3)
    expected = torch.einsum('hi,wj,ijc->hwc', resize_matrix(4, dst[0]), resize_matrix(5, dst[1]), old)
    resized = resize_pos_embed(table, (4, 5), dst)
    torch.testing.assert_close(resized[0, 1:].double(), expected.flatten(0, 1), rtol=0, atol=1e-5)
    assert torch.equal(resized[:, :1], table[:, :1])


def test_positions_of_the_same_size_stay_and_other_numbers_are_refused():
    table = torch.rand(1, 21, 3)
    assert resize_pos_embed(table, (4, 5), (4, 5)) is table
    with pytest.raises(ValueError, match='21 positions'):
        resize_pos_embed(table, (4, 4), (8, 8))


def test_patch_embed_is_a_linear_map_of_each_patch():
    embed, x = PatchEmbed(4, 3, 8), torch.rand(2, 3, 8, 12)
    tokens, hw = embed(x)
    assert hw == (2, 3)
    patch = x[1, :, 4:8, 8:12].flatten()
    expected = embed.projection.weight.flatten(1) @ patch + embed.projection.bias
    torch.testing.assert_close(tokens[1, 5], expected)


def test_initial_weights():
    block = Block(64, 4)
    nn.init.constant_(block.norm1.bias, 3.0)
    init_transformer_weights(block)
    bound = math.sqrt(6 / (64 + 192))
    assert bound * 0.98 < block.attn.qkv.weight.abs().max() <= bound
    assert not block.attn.qkv.bias.any()
    assert not block.norm1.bias.any()


@pytest.mark.parametrize('entries', [0, 3])
def test_a_table_of_relative_positions_equals_a_plain_loop(entries):
    h, w = 3, 2
    table = torch.rand(5 * 3 + entries, 4)
    bias = rel_pos_table_bias(table, (h, w), (h, w))
    prefix = entries // 3
    assert bias.shape == (1, 4, prefix + h * w, prefix + h * w)
    for i in range(h * w):
        for j in range(h * w):
            row = (i // w - j // w + h - 1) * (2 * w - 1) + i % w - j % w + w - 1
            assert torch.equal(bias[0, :, prefix + i, prefix + j], table[row])
    if prefix:
        to_patch, from_patch, class_to_class = table[-3:]
        assert (bias[0, :, 0, 1:] == to_patch[:, None]).all()
        assert (bias[0, :, 1:, 0] == from_patch[:, None]).all()
        assert torch.equal(bias[0, :, 0, 0], class_to_class)


def test_a_table_of_relative_positions_enters_attention():
    attn = Attention(24, 3, rel_pos_table_size=(3, 4), with_cls_token=True).double()
    nn.init.normal_(attn.rel_pos_bias_table)
    x = torch.rand(2, 13, 24, dtype=torch.double)
    q, k, v = attn.qkv(x).unflatten(2, (3, 3, 8)).permute(2, 0, 3, 1, 4)
    scores = q @ k.transpose(2, 3) / math.sqrt(8) + rel_pos_table_bias(attn.rel_pos_bias_table, (3, 4), (3, 4))
    expected = attn.proj((scores.softmax(-1) @ v).transpose(1, 2).flatten(2))
    torch.testing.assert_close(attn(x, (3, 4)), expected, rtol=0, atol=1e-12)
    with pytest.raises(ValueError, match='not both'):
        Attention(24, 3, rel_pos_size=(3, 4), rel_pos_table_size=(3, 4))


def test_neighbours_keep_their_entries_when_a_table_is_resized():
    table = torch.rand(7 * 7 + 3, 2)
    assert resize_rel_pos_table(table, (4, 4), (4, 4)) is table
    smaller = resize_rel_pos_table(table, (4, 4), (2, 3))
    assert torch.equal(smaller[:-3].unflatten(0, (3, 5)), table[:-3].unflatten(0, (7, 7))[2:5, 1:6])
    larger = resize_rel_pos_table(table, (4, 4), (9, 4))
    old, new = table[:-3].unflatten(0, (7, 7)), larger[:-3].unflatten(0, (17, 7))
    torch.testing.assert_close(new[[0, 7, 8, 9, 16]], old[[0, 2, 3, 4, 6]])  # the ends, and offsets of at most one
    assert torch.equal(larger[-3:], table[-3:])
    assert resize_rel_pos_table(torch.ones(1, 2), (1, 1), (2, 2)).equal(torch.ones(9, 2))
    with pytest.raises(ValueError, match='52 rows; a map of 3 x 4 needs 35, or 38'):
        resize_rel_pos_table(table, (3, 4), (4, 4))


def test_layer_scale_of_zero_leaves_the_tokens():
    block = Block(24, 3, layer_scale_init=0.0)
    x = torch.rand(2, 4, 24)
    assert torch.equal(block(x), x)
    assert {name for name, _ in block.named_parameters() if name.startswith('ls')} == {'ls1.gamma', 'ls2.gamma'}


def test_a_width_given_as_a_ratio_is_not_lost_by_rounding():
    assert int(56 * (488 / 56)) == 487
    assert Block(56, 4, mlp_ratio=488 / 56).mlp.fc1.out_features == 488
