# Copyright (c) addp_mm contributors. Apache-2.0.
"""Consecutive windowed blocks keep the tokens in window order: same numbers, fewer copies."""

import pytest
import torch
from torch import nn
from torch.profiler import ProfilerActivity, profile

from addp_mm.models.backbones import ADDPViT
from addp_mm.models.layers import Block
from addp_mm.models.layers.window import from_window_order, to_window_order, window_partition

TINY = dict(embed_dims=32, num_layers=5, num_heads=2, mlp_ratio=2.0)


def build(**options) -> ADDPViT:
    """Four windowed blocks, a global one among them; relative positions that are not zero."""
    torch.manual_seed(0)
    settings = dict(window_size=2, global_blocks=(3,), use_rel_pos=True, with_cls_token=False, out_type='featmap')
    vit = ADDPViT(**{**dict(arch=TINY, img_size=32, patch_size=4, **settings), **options})
    for name, parameter in vit.named_parameters():
        if 'rel_pos' in name:
            nn.init.normal_(parameter, std=0.3)
    return vit


def run(vit: ADDPViT, image: torch.Tensor) -> tuple[list[torch.Tensor], list[torch.Tensor]]:
    """Outputs and gradients."""
    torch.manual_seed(1)
    outs = vit(image)
    gradients = torch.autograd.grad(sum(x.square().sum() for x in outs), list(vit.parameters()))
    return [x.detach() for x in outs], list(gradients)


@pytest.mark.parametrize('hw,window', [((4, 6), 2), ((9, 3), 3), ((4, 4), 4)])
def test_window_order_is_that_of_the_windows(hw, window):
    x = torch.rand(2, hw[0] * hw[1], 5)
    ordered = to_window_order(x, hw, window)
    windows, _ = window_partition(x.unflatten(1, hw), window)
    assert torch.equal(ordered.reshape(windows.shape), windows)
    assert torch.equal(from_window_order(ordered, hw, window), x)


def test_a_block_in_window_order_does_the_same():
    block = Block(32, 2, window_size=3, rel_pos_size=(6, 9), layer_scale_init=0.5)
    nn.init.normal_(block.attn.rel_pos_h)
    x = torch.rand(2, 54, 32)
    ordered = block(to_window_order(x, (6, 9), 3), (6, 9), in_window_order=True)
    assert torch.equal(from_window_order(ordered, (6, 9), 3), block(x, (6, 9)))
    assert block.window_order((6, 9)) == 3
    assert block.window_order((6, 8)) == block.window_order((7, 9)) == 0
    assert Block(32, 2).window_order((6, 9)) == 0


@pytest.mark.parametrize(
    'options,size',
    [
        (dict(), (32, 32)),
        (dict(out_indices=(0, 1, 3, 4), with_cp=True, drop_path_rate=0.3), (24, 40)),
        (dict(use_rel_pos=False, use_rel_pos_table=True, global_blocks=(0, 2)), (16, 24)),
        (dict(out_type='avg_featmap', frozen_stages=-1), (32, 16)),
        (dict(out_type='raw'), (20, 32)),  # an odd number of rows: padded
    ],
)
def test_a_backbone_in_window_order_does_the_same(options, size, monkeypatch):
    image = torch.rand(2, 3, *size, generator=torch.Generator().manual_seed(2))
    outs, gradients = run(build(**options), image)
    monkeypatch.setattr(Block, 'window_order', lambda self, hw: 0)
    plain_outs, plain_gradients = run(build(**options), image)
    assert all(torch.equal(one, other) for one, other in zip(outs, plain_outs, strict=True))
    for got, expected in zip(gradients, plain_gradients, strict=True):
        # a weight's gradient is a sum over tokens in their order
        torch.testing.assert_close(got, expected, rtol=1e-5, atol=1e-4)


def copies(vit: ADDPViT, image: torch.Tensor) -> int:
    """How many times the tokens of a forward pass are copied."""
    with torch.no_grad(), profile(activities=[ProfilerActivity.CPU], record_shapes=True) as profiled:
        vit(image)
    return sum(
        event.count
        for event in profiled.key_averages(group_by_input_shape=True)
        if event.key in ('aten::clone', 'aten::constant_pad_nd')
    )


def test_a_run_of_windowed_blocks_copies_the_tokens_once(monkeypatch):
    options = dict(use_rel_pos=False, global_blocks=(), out_type='raw')
    image = torch.rand(1, 3, 32, 32)
    count = copies(build(**options), image)
    assert count == copies(build(**options, window_size=0), image) + 2
    monkeypatch.setattr(Block, 'window_order', lambda self, hw: 0)
    assert copies(build(**options), image) == count + 2 * 4
    # 3 x 3 windows on 8 x 8 tokens: padded, split and joined, but not cut
    padded = copies(build(**options, window_size=3), image)
    assert padded == count - 2 + 3 * 5
