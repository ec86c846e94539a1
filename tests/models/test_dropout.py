# Copyright (c) addp_mm contributors. Apache-2.0.
"""Dropout with fast draws: its distribution, gradient and attention."""

import pytest
import torch

from addp_mm.models.layers import dropout as layer
from addp_mm.models.layers.dropout import Dropout, attend_with_dropout, dropout


@pytest.mark.parametrize('p', [0.1, 0.5, 0.9])
def test_each_number_is_dropped_with_the_probability(p):
    torch.manual_seed(0)
    count = 1_000_001  # odd: two numbers are drawn at a time
    out = dropout(torch.ones(count), p, training=True)
    kept = out != 0
    deviation = (p * (1 - p) / count) ** 0.5
    assert abs(kept.double().mean() - (1 - p)) < 5 * deviation
    assert abs(kept[::2].double().mean() - kept[1::2].double().mean()) < 10 * deviation  # both halves of a draw
    both = (kept[:-1:2] & kept[1::2]).double().mean()
    assert abs(both - (1 - p) ** 2) < 10 * deviation  # and they are independent
    torch.testing.assert_close(out[kept], torch.full((int(kept.sum()),), 1 / (1 - p)))


def test_the_seed_decides_and_the_gradient_passes_where_numbers_are_kept():
    x = torch.rand(4, 3, 5, dtype=torch.bfloat16).requires_grad_()
    outs = []
    for _ in range(2):
        torch.manual_seed(1)
        outs.append(Dropout(0.4)(x))
    assert torch.equal(*outs)
    assert outs[0].dtype == torch.bfloat16
    (grad,) = torch.autograd.grad(outs[0].sum(), x)
    assert torch.equal(grad, torch.where(outs[0] == 0, 0, torch.tensor(1 / 0.6, dtype=torch.bfloat16)))


def test_the_default_device_does_not_matter():
    x = torch.ones(9)
    with torch.device('meta'):
        assert dropout(x, 0.5, training=True).device == x.device


def test_where_nothing_is_drawn():
    x = torch.rand(3)
    assert Dropout(0.5).eval()(x) is x
    assert torch.equal(Dropout(0.0)(x), x)
    assert torch.equal(Dropout(1.0)(x), torch.zeros(3))
    assert torch.isfinite(Dropout(1 - 1e-12)(x)).all()
    inplace = x.clone()
    assert Dropout(0.5, inplace=True)(inplace) is inplace


@pytest.mark.parametrize('dtype', [torch.float32, torch.bfloat16])
def test_attention_drops_weights(dtype, monkeypatch):
    torch.manual_seed(0)
    query, key, value = (torch.randn(2, 3, 6, 4).to(dtype) for _ in range(3))
    bias = torch.randn(3, 6, 6).to(dtype)
    monkeypatch.setattr(layer, 'dropout', lambda x, p, training: x)
    for given in (None, bias):
        scores = query.double() @ key.double().mT / 2
        expected = (scores if given is None else scores + given.double()).softmax(-1) @ value.double()
        with torch.autocast('cpu', torch.bfloat16):
            out = attend_with_dropout(query, key, value, given, 0.3)
        assert out.dtype == dtype
        torch.testing.assert_close(out.double(), expected, rtol=1e-6, atol=1e-6 if dtype == torch.float32 else 5e-3)
    monkeypatch.undo()
    torch.manual_seed(2)
    # every query's weights are 1 / 6 each, so that the output counts the kept ones
    kept = attend_with_dropout(torch.zeros(64, 8, 6, 4), torch.zeros(64, 8, 6, 4), torch.ones(64, 8, 6, 4), None, 0.25)
    counts = (kept[..., 0] * 6 * 0.75).round()
    torch.testing.assert_close(kept, (counts / 4.5)[..., None].expand_as(kept))
    assert abs(counts.mean() / 6 - 0.75) < 0.02
