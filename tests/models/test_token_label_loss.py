# Copyright (c) addp_mm contributors. Apache-2.0.
"""The loss of token labelling, and the exchange of tokens."""

import math

import pytest
import torch
from helpers.volo_reference import assert_close, exchanged, reference

from addp_mm.models.layers.mix_token import draw_box, exchange_box
from addp_mm.models.losses import TokenLabelLoss


@pytest.mark.parametrize('with_ground_truth,name', [(False, 'loss_token_label'), (True, 'loss_token_label_gt')])
def test_equals_the_published_loss(with_ground_truth, name):
    ref = reference()
    losses = TokenLabelLoss(with_ground_truth)(ref['mix_cls'], ref['mix_aux'], ref['labels'], exchanged())
    assert_close(losses['loss_cls'] + losses['loss_token'], ref[name])


def test_shares_of_the_ground_truth():
    """Half where the label map names the class of the ground truth, else a tenth."""
    logits = torch.log(torch.tensor([[0.2, 0.3, 0.5]] * 2))
    target = torch.zeros(2, 3, 3)
    target[:, 0, 0] = 1
    target[0, 0, 1] = target[1, 2, 1] = 1
    target[:, 1, 2] = 1
    losses = TokenLabelLoss(True, cls_weight=2, dense_weight=3)(logits, logits.unsqueeze(1), target)
    log = [math.log(one) for one in (0.2, 0.3, 0.5)]
    assert losses['loss_cls'].item() == pytest.approx(-2 * (log[0] + 0.1 * log[0] + 0.9 * log[2]) / 2, rel=1e-6)
    assert losses['loss_token'].item() == pytest.approx(-3 * log[1], rel=1e-6)


def test_without_label_maps_every_token_has_the_label_of_the_image():
    generator = torch.Generator().manual_seed(0)
    cls_logits, token_logits = (torch.randn(*shape, generator=generator) for shape in ((3, 5), (3, 4, 5)))
    target = torch.rand(3, 5, generator=generator).softmax(1)
    losses = TokenLabelLoss()(cls_logits, token_logits, target)
    expected = -(target[:, None] * token_logits.log_softmax(-1)).sum(-1).mean()
    torch.testing.assert_close(losses['loss_token'], 0.5 * expected)
    with_maps = torch.cat([torch.rand(3, 5, 1), target[:, :, None].expand(3, 5, 5)], dim=2)
    assert TokenLabelLoss()(cls_logits, token_logits, with_maps) == losses


def test_losses_of_half_precision_are_computed_in_float32():
    ref = reference()
    logits = [ref[name].bfloat16() for name in ('mix_cls', 'mix_aux')]
    losses = TokenLabelLoss()(*logits, ref['labels'])
    assert all(loss.dtype == torch.float32 for loss in losses.values())


def test_the_published_box_is_exchanged_with_the_flipped_batch():
    x = torch.arange(3 * 4 * 6).reshape(3, 4, 6, 1)
    mixed = exchange_box(x, (0, 1, 1, 3), scale=2)
    inside = torch.zeros(4, 6, dtype=torch.bool)
    inside[0:2, 2:6] = True
    assert torch.equal(mixed[:, inside], x.flip(0)[:, inside])
    assert torch.equal(mixed[:, ~inside], x[:, ~inside])
    assert torch.equal(mixed[1], x[1])  # the middle of an odd batch
    assert torch.equal(exchange_box(mixed, (0, 1, 1, 3), scale=2), x)


def test_boxes_lie_on_the_map():
    torch.manual_seed(0)
    boxes = [draw_box(14, 20) for _ in range(500)]
    for top, left, bottom, right in boxes:
        assert 0 <= top <= bottom <= 14
        assert 0 <= left <= right <= 20
    heights = [bottom - top for top, _, bottom, _ in boxes]
    assert min(heights) == 0
    assert max(heights) == 12  # the published code rounds the half down


def test_the_side_of_boxes_has_the_published_distribution():
    torch.manual_seed(0)
    boxes = torch.tensor([draw_box(1000, 2000) for _ in range(2000)])
    # side s = sqrt(uniform), of which s^2 / 4 lies outside: E(s) = 2 / 3, E(s^2) = 1 / 2
    for side, size in ((boxes[:, 2] - boxes[:, 0], 1000), (boxes[:, 3] - boxes[:, 1], 2000)):
        assert (side / size).mean().item() == pytest.approx(2 / 3 - 1 / 8, abs=0.02)


def test_boxes_come_from_torchs_generator():
    torch.manual_seed(3)
    first = [draw_box(14, 14) for _ in range(5)]
    torch.manual_seed(3)
    assert [draw_box(14, 14) for _ in range(5)] == first
