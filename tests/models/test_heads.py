# Copyright (c) addp_mm contributors. Apache-2.0.
"""The token head and its loss."""

import math

import pytest
import torch
import torch.nn.functional as F

from addp_mm.models.heads import TokenHead
from addp_mm.models.losses import SoftTargetCrossEntropy

SPACE = dict(codebook_size=4, num_class_slots=1, fake_class_slot=0)


@pytest.fixture
def head():
    return TokenHead(8, 6, SPACE, loss=dict(type='addp_mm.SoftTargetCrossEntropy'))


def test_word_embeddings_get_no_gradient(head):
    words = torch.randn(6, 6, requires_grad=True)
    logits = head(torch.randn(2, 3, 8), words)
    assert logits.shape == (2, 3, 6)
    logits.sum().backward()
    assert words.grad is None
    assert all(p.grad is not None for p in head.parameters())
    torch.nn.init.constant_(head.bias, 2.5)
    torch.testing.assert_close(head(torch.randn(3, 8), torch.zeros(6, 6)), torch.full((3, 6), 2.5))


def test_loss_is_over_masked_positions_only(head):
    states, words = torch.randn(2, 3, 8), torch.randn(6, 6)
    target = torch.rand(2, 3, 4).softmax(-1)
    mask = torch.tensor([[True, False, True], [False, False, True]])
    loss = head.loss(states, words, target[mask], mask)['loss']
    elsewhere = torch.where(mask.unsqueeze(-1), states, torch.randn_like(states))
    assert torch.equal(loss, head.loss(elsewhere, words, target[mask], mask)['loss'])
    with pytest.raises(ValueError, match='does not fit'):
        head.loss(states, words, target, mask)
    by_hand = 0.0
    for row, position in mask.nonzero().tolist():
        smooth = 0.9 * torch.nn.functional.pad(target[row, position], (0, 2)) + 0.1 / 6
        by_hand -= (smooth * head(states[row, position], words).log_softmax(-1)).sum().item() / 3
    assert loss.item() == pytest.approx(by_hand, rel=1e-5)


def test_a_head_without_a_loss_is_refused():
    head = TokenHead(8, token_space=SPACE)
    with pytest.raises(RuntimeError, match='without a loss'):
        head.loss(torch.zeros(1, 1, 8), torch.zeros(6, 8), torch.zeros(1, 4), torch.ones(1, 1).bool())


def test_soft_target_cross_entropy_values():
    target = torch.tensor([[0.5, 0.5, 0.0]])
    logits = torch.tensor([[0.0, 0.0, -100.0, -100.0]])
    assert SoftTargetCrossEntropy(0.0)(logits, target).item() == pytest.approx(math.log(2))
    assert SoftTargetCrossEntropy(0.0, loss_weight=3.0)(logits, target).item() == pytest.approx(3 * math.log(2))
    assert SoftTargetCrossEntropy(0.1)(torch.zeros(1, 4), target).item() == pytest.approx(math.log(4))
    loss = SoftTargetCrossEntropy(0.0)(logits.half(), target.half())
    assert loss.dtype == torch.float32


@pytest.mark.parametrize('num_targets', [6, 9])
@pytest.mark.parametrize('smoothing', [0.0, 0.1])
@pytest.mark.parametrize('dtype, rounding', [(torch.float64, 1e-6), (torch.bfloat16, 1e-2)])
def test_soft_target_cross_entropy_equals_the_padded_and_smoothed_one(num_targets, smoothing, dtype, rounding):
    """Loss and gradient, in float32 in any case; the gradient has the dtype of the logits."""
    torch.manual_seed(0)
    logits = (4 * torch.randn(40, 9)).to(dtype).requires_grad_()
    target = torch.randn(40, num_targets).softmax(-1)
    padded = F.pad(target, (0, 9 - num_targets))
    with torch.autocast('cpu', torch.bfloat16, enabled=dtype == torch.bfloat16):
        loss = SoftTargetCrossEntropy(smoothing)(logits, target)
    expected = F.cross_entropy(logits.float(), padded, label_smoothing=smoothing)
    assert loss.dtype == torch.float32
    torch.testing.assert_close(loss, expected, atol=0, rtol=2e-6)
    gradients = [torch.autograd.grad(value, logits)[0] for value in (loss, expected)]
    torch.testing.assert_close(*gradients, atol=1e-8, rtol=rounding)


def test_shapes_and_options_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match='label_smoothing'):
        SoftTargetCrossEntropy(1.0)
    with pytest.raises(ValueError, match='does not fit'):
        SoftTargetCrossEntropy()(torch.zeros(2, 3), torch.zeros(2, 4))
    with pytest.raises(ValueError, match='does not fit'):
        SoftTargetCrossEntropy()(torch.zeros(2, 3), torch.zeros(1, 3))
