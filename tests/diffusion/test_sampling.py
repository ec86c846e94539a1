# Copyright (c) addp_mm contributors. Apache-2.0.
"""Rules of generation against plain computations."""

import math
from fractions import Fraction

import pytest
import torch

from addp_mm.diffusion import (
    annealed_temperature,
    corrupt,
    corrupt_rows,
    cosine_ratio,
    expected_latents,
    halton_order,
    linear_ratio,
    mask_length,
    most_likely,
    nucleus,
    power_ratio,
    remask,
    remask_in_order,
    sample_ids,
    uniform_noise,
)


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def test_expected_latents_are_row_major_means():
    codebook = torch.randn(5, 3)
    probabilities = torch.rand(2, 6, 5).softmax(-1)
    latents = expected_latents(probabilities, codebook, 2, 3)
    assert latents.shape == (2, 3, 2, 3)
    torch.testing.assert_close(latents[1, :, 1, 2], probabilities[1, 5] @ codebook)


def test_corruption_changes_masked_positions_only():
    clean, expected = torch.zeros(1, 2, 2, 2), torch.ones(1, 2, 2, 2)
    mixed = corrupt(clean, expected, torch.tensor([[True, False, False, True]]))
    assert mixed[0, 0].tolist() == mixed[0, 1].tolist() == [[1, 0], [0, 1]]


def test_corruption_by_rows_equals_that_by_maps():
    clean, expected = torch.randn(3, 2, 4, 5), torch.randn(3, 2, 4, 5)
    mask = torch.rand(3, 20, generator=seeded()) < 0.6
    by_rows = corrupt_rows(clean, expected.flatten(2).transpose(1, 2)[mask], mask.flatten().nonzero()[:, 0])
    assert torch.equal(by_rows, corrupt(clean, expected, mask))


def test_ratios_and_temperature_fall_to_zero():
    assert cosine_ratio(9, 20) == pytest.approx(math.cos(math.pi / 4))
    assert cosine_ratio(19, 20) == pytest.approx(0, abs=1e-12)
    assert [linear_ratio(step, 4) for step in range(4)] == [0.75, 0.5, 0.25, 0]
    assert [power_ratio(step, 4, 2) for step in range(4)] == [15 / 16, 0.75, 7 / 16, 0]
    assert [annealed_temperature(step, 4) for step in range(4)] == [4.5, 3.0, 1.5, 0]


def test_mask_length_is_rounded_up_and_clipped():
    assert [int(mask_length(torch.tensor([64]), ratio)) for ratio in (0.0, 0.01, 0.501, 1.0)] == [1, 1, 33, 64]
    assert mask_length(torch.tensor([64, 10, 1, 0]), 0.501).tolist() == [33, 6, 1, 0]


def test_nucleus_keeps_the_fewest_codes_that_reach_top_p():
    probabilities = torch.tensor([0.1, 0.4, 0.2, 0.3])
    assert nucleus(probabilities, 1.0) is probabilities
    torch.testing.assert_close(nucleus(probabilities, 0.5), torch.tensor([0.0, 0.4, 0.0, 0.3]))
    torch.testing.assert_close(nucleus(probabilities, 0.4), torch.tensor([0.0, 0.4, 0.0, 0.0]))
    torch.testing.assert_close(nucleus(probabilities, 1e-9), torch.tensor([0.0, 0.4, 0.0, 0.0]))
    for top_p in (0.0, 1.1):
        with pytest.raises(ValueError, match='top_p'):
            nucleus(probabilities, top_p)


def test_most_likely_keeps_k_codes_and_of_equal_ones_the_first():
    probabilities = torch.tensor([[0.1, 0.4, 0.2, 0.3], [0.25, 0.25, 0.25, 0.25]])
    expected = torch.tensor([[0, 4 / 7, 0, 3 / 7], [0.5, 0.5, 0, 0]])
    torch.testing.assert_close(most_likely(probabilities, 2), expected)
    for top_k in (4, 5, 1000):
        assert most_likely(probabilities, top_k) is probabilities
    with pytest.raises(ValueError, match='top_k must be at least 1, got 0'):
        most_likely(probabilities, 0)


def test_top_k_is_applied_before_the_nucleus():
    logits = torch.tensor([0.1, 0.4, 0.2, 0.3]).log().expand(2, 2000, 4)
    # of codes 1 and 3, with 4/7 and 3/7, the nucleus of 0.5 is code 1; of all codes it is 1 and 3
    assert sample_ids(logits, seeded(), top_p=0.5, top_k=2)[0].unique().tolist() == [1]
    assert sample_ids(logits, seeded(), top_p=0.5)[0].unique().tolist() == [1, 3]
    ids, log_probs = sample_ids(logits, seeded(), top_k=2)
    assert (ids.flatten().bincount(minlength=4) / 4000).tolist() == pytest.approx([0, 4 / 7, 0, 3 / 7], abs=0.03)
    torch.testing.assert_close(log_probs, torch.tensor([0.1, 0.4, 0.2, 0.3])[ids].log())


def radical_inverse(index, base):
    """The digits of ``index`` behind the point, in reverse order, as an exact fraction."""
    value, factor = Fraction(0), Fraction(1)
    while index:
        index, digit = divmod(index, base)
        factor /= base
        value += factor * digit
    return value


# sides that are powers of 2 and 3 have points on the edges of cells
@pytest.mark.parametrize('size', [(1, 1), (1, 7), (4, 3), (8, 8), (16, 16), (9, 27), (27, 9), (24, 12)])
def test_halton_order_takes_the_cells_as_the_points_reach_them(size):
    height, width = size
    cells, index = {}, 0
    while len(cells) < height * width:
        index += 1
        row, column = int(radical_inverse(index, 2) * height), int(radical_inverse(index, 3) * width)
        cells.setdefault(row * width + column)
    order = halton_order(height, width)
    assert order.tolist() == list(cells)
    assert order.dtype == torch.int64
    assert len(order) == height * width


def test_positions_are_masked_again_from_the_end_of_the_order():
    order = torch.tensor([3, 0, 4, 1, 2])
    mask = torch.tensor([[True] * 5, [True, True, False, True, True]])
    assert remask_in_order(order, mask, 2).tolist() == [
        [False, True, True, False, False],
        [False, True, False, False, True],
    ]
    assert remask_in_order(order, mask, torch.tensor([0, 4])).tolist() == [[False] * 5, mask[1].tolist()]
    with pytest.raises(ValueError, match='known positions'):
        remask_in_order(order, mask, 5)


def test_ids_follow_the_probabilities():
    probabilities = torch.tensor([0.1, 0.6, 0.0, 0.3])
    ids, log_probs = sample_ids(probabilities.log().expand(4, 2000, 4), seeded())
    assert (ids.flatten().bincount(minlength=4) / 8000).tolist() == pytest.approx(probabilities.tolist(), abs=0.02)
    torch.testing.assert_close(log_probs, probabilities[ids].log())
    ids, log_probs = sample_ids(probabilities.log().expand(4, 2000, 4), seeded(), top_p=0.7)
    assert (ids.flatten().bincount(minlength=4) / 8000).tolist() == pytest.approx([0, 2 / 3, 0, 1 / 3], abs=0.02)
    torch.testing.assert_close(log_probs, probabilities[ids].log())


def test_a_low_temperature_draws_the_most_likely_code_and_zero_is_refused():
    logits = torch.randn(2, 9, 7)
    assert torch.equal(sample_ids(logits, seeded(), temperature=1e-4)[0], logits.argmax(-1))
    with pytest.raises(ValueError, match='temperature'):
        sample_ids(logits, seeded(), temperature=0.0)


def test_a_row_with_its_own_generator_does_not_depend_on_the_batch():
    logits = torch.randn(3, 9, 7)
    ids, log_probs = sample_ids(logits, [seeded(i) for i in range(3)])
    assert torch.equal(ids[2:], sample_ids(logits[2:], [seeded(2)])[0])
    mask = torch.ones(3, 9, dtype=torch.bool)
    masks = remask(log_probs, mask, 4, 6.0, [seeded(i) for i in range(3)])
    assert torch.equal(masks[1:2], remask(log_probs[1:2], mask[1:2], 4, 6.0, [seeded(1)]))
    with pytest.raises(ValueError, match='2 generators for a batch of 3'):
        uniform_noise(3, 9, generator=[seeded(), seeded()])


def test_least_confident_positions_are_masked_again_and_known_ones_never():
    log_probs = torch.tensor([[-9.0, -1.0, -2.0, -3.0, -4.0]])
    mask = torch.tensor([[False, True, True, True, True]])
    assert remask(log_probs, mask, 2, 0.0, seeded()).tolist() == [[False, False, False, True, True]]
    for seed in range(20):
        noisy = remask(log_probs, mask, 2, 50.0, seeded(seed))
        assert noisy.sum() == 2
        assert not noisy[0, 0]


def test_lengths_may_differ_by_row():
    log_probs, mask = torch.zeros(3, 6), torch.ones(3, 6, dtype=torch.bool)
    assert remask(log_probs, mask, torch.tensor([0, 2, 6]), 1.0, seeded()).sum(1).tolist() == [0, 2, 6]
    mask[1, :5] = False
    with pytest.raises(ValueError, match='known positions'):
        remask(log_probs, mask, 2, 1.0, seeded())


def test_confidence_noise_is_gumbel():
    """Of two positions the likelier stays with probability sigmoid(difference / temperature)."""
    log_probs = torch.tensor([[0.0, -1.0]]).expand(4000, 2)
    kept = ~remask(log_probs, torch.ones(4000, 2, dtype=torch.bool), 1, 2.0, seeded())
    assert kept[:, 0].float().mean().item() == pytest.approx(1 / (1 + math.exp(-0.5)), abs=0.02)
