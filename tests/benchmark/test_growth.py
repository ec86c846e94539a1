# Copyright (c) addp_mm contributors. Apache-2.0.
"""Exponents of growth, the attention as a part, and the chart."""

import pytest
import torch
import torch.nn.functional as F

from addp_mm.analysis.costs import flop_counter
from addp_mm.benchmark.attention_span import ATTENTION, wrap_attention
from addp_mm.benchmark.growth import Growth, exact, faster_than_linear, growth_table
from addp_mm.benchmark.spans import Spans
from addp_mm.report.growth_figures import growth_charts

SIZES = (1, 2, 4)


def powers(exponent, spread=1.0):
    return [(size**exponent / spread, size**exponent, size**exponent * spread) for size in SIZES]


@pytest.mark.parametrize('exponent', [0.0, 0.5, 1.0, 2.0])
def test_the_exponent_of_a_power(exponent):
    growth = Growth('time', SIZES, powers(exponent))
    assert [one.value for one in growth.exponents()] == pytest.approx([exponent] * 2)
    assert growth.is_faster_than_linear() == (exponent > 1)


def test_a_large_spread_makes_no_growth_sure():
    wide, narrow = (Growth('time', SIZES, powers(2, spread)) for spread in (1.5, 1.1))
    assert wide.exponents()[0].value == pytest.approx(2)
    assert wide.exponents()[0].least == pytest.approx(2 - 2 * torch.log2(torch.tensor(1.5)).item())
    assert (wide.is_faster_than_linear(), narrow.is_faster_than_linear()) == (False, True)


def test_tables_name_what_grows_faster_than_linearly():
    growths = [
        Growth('attention', SIZES, powers(2)),
        Growth('memory', SIZES, [exact(1), exact(None), exact(4)]),
        Growth('head', SIZES, [exact(0), exact(1), exact(2)]),
    ]
    assert growth_table(growths, 'tokens') == dict(
        header=['exponent in tokens', '1 to 2', '2 to 4', 'faster than linear'],
        rows=[['attention', '2.00', '2.00', 'yes'], ['memory', '–', '–', 'no'], ['head', '–', '1.00', 'no']],
    )
    assert faster_than_linear({'training': growths}) == ['training: attention (exponents 2.00, 2.00)']
    assert growths[0].record()['medians'] == [1, 4, 16]


def test_attention_is_a_part_in_both_passes_and_its_gradients_do_not_change():
    batch, heads, tokens, dims = 1, 2, 8, 4

    def gradients():
        generator = torch.Generator().manual_seed(0)
        x = torch.rand(batch, heads, tokens, dims, generator=generator, requires_grad=True)
        weight = torch.ones(dims, dims, requires_grad=True)
        projected = x @ weight
        out = F.scaled_dot_product_attention(projected, 2 * projected, 3 * projected)
        (out @ weight).square().sum().backward()
        return x.grad, weight.grad

    with flop_counter():  # chooses the kernel
        plain, spans = gradients(), Spans()
    wrap_attention(spans)
    with flop_counter() as counter, spans.record(counter.get_total_flops) as parts:
        wrapped = gradients()
    with torch.no_grad():  # a frozen component has attention without a backward pass
        F.scaled_dot_product_attention(*torch.rand(3, 1, 1, 2, 4))
    spans.unwrap()
    for one, other in zip(plain, wrapped, strict=True):
        assert torch.equal(one, other)
    forward = 2 * 2 * batch * heads * tokens**2 * dims
    assert parts[ATTENTION] == 3 * forward
    assert parts['other'] == counter.get_total_flops() - 3 * forward > 0
    assert F.scaled_dot_product_attention.__module__ != 'addp_mm.benchmark.attention_span'


def test_the_chart_shows_the_titles_and_leaves_out_zeros():
    lines = {'time': [(1, 0.5), (2, 1.0)], 'nothing': [(1, 0)]}
    svg = growth_charts({'ADDP': ('tokens', 'seconds', lines)}).content.decode()
    assert all(f'>{text}</text>' in svg for text in ('ADDP', 'tokens', 'seconds', 'time', 'linear'))
    assert '>nothing</text>' not in svg
