# Copyright (c) addp_mm contributors. Apache-2.0.
"""Contrastive scores equal the published ones, in chunks too."""

import math

import pytest
import torch
from helpers.published_cdpo import SIDES, reference

from addp_mm.alignment import contrastive_scores, token_log_probs, token_weights
from addp_mm.alignment.token_scores import score_ranks


@pytest.mark.parametrize('side', SIDES)
@pytest.mark.parametrize('chunk_size', [1, 7, 4096])
def test_scores_and_log_probs_are_the_published_ones(side, chunk_size):
    found, contrast = reference()[side], reference()['contrast']
    mask = found['mask']
    scores = contrastive_scores(
        found['positive_logits'], found['negative_logits'], found['ids'], contrast, mask, chunk_size
    )
    torch.testing.assert_close(scores[mask], found['score'][mask], rtol=0, atol=1e-6)
    assert (scores[~mask] == 0).all()
    for model in ('policy', 'reference'):
        log_probs = token_log_probs(found[f'{model}_logits'], found['ids'], mask, chunk_size)
        torch.testing.assert_close(log_probs, found[f'{model}_logps'], rtol=0, atol=1e-6)


def test_the_score_is_the_contrasted_softmax_of_any_strength():
    positive, negative = torch.randn(2, 3, 5, 11, dtype=torch.float64)
    ids = torch.randint(11, (3, 5))
    for contrast in (0.0, 0.5, 3.0):
        power = positive.softmax(-1) ** (1 + contrast) / negative.softmax(-1) ** contrast
        expected = (power / power.sum(-1, keepdim=True)).gather(-1, ids[..., None])[..., 0]
        torch.testing.assert_close(contrastive_scores(positive, negative, ids, contrast), expected)


def test_equal_models_give_the_probability_of_the_token():
    logits, ids = torch.randn(2, 4, 9), torch.randint(9, (2, 4))
    scores = contrastive_scores(logits, logits, ids, contrast=2.0)
    torch.testing.assert_close(scores, token_log_probs(logits, ids).exp())


def test_a_code_that_both_models_forbid_has_the_score_0():
    positive, negative = torch.zeros(2, 1, 4)
    positive[..., 2] = negative[..., 2] = -math.inf
    scores = contrastive_scores(positive.expand(2, 4), negative.expand(2, 4), torch.tensor([2, 0]))
    torch.testing.assert_close(scores, torch.tensor([0, 1 / 3]))


def test_half_precision_is_computed_in_float32():
    logits = torch.randn(2, 3, 64).bfloat16()
    ids = torch.randint(64, (2, 3))
    assert token_log_probs(logits, ids).dtype == torch.float32
    torch.testing.assert_close(token_log_probs(logits, ids), token_log_probs(logits.float(), ids))


def test_log_probs_have_the_gradient_of_the_softmax():
    logits = torch.randn(2, 3, 5, dtype=torch.float64, requires_grad=True)
    ids, mask = torch.randint(5, (2, 3)), torch.tensor([[True, False, True], [True, True, False]])
    assert torch.autograd.gradcheck(lambda values: token_log_probs(values, ids, mask, 1), (logits,))


def test_an_empty_mask_gives_zeros():
    logits = torch.randn(2, 3, 5, requires_grad=True)
    log_probs = token_log_probs(logits, torch.zeros(2, 3, dtype=torch.long), torch.zeros(2, 3, dtype=torch.bool))
    log_probs.sum().backward()
    assert (log_probs == 0).all()
    assert (logits.grad == 0).all()


def test_weights_are_low_where_a_rejected_token_is_not_to_blame():
    scores = torch.tensor([[0.1, 0.9]])
    assert token_weights(scores, 'rejected').tolist() == [[pytest.approx(0.9), pytest.approx(0.1)]]
    assert token_weights(scores, 'chosen').tolist() == [[1, 1]]
    assert torch.equal(token_weights(scores, 'chosen', 'both'), scores)
    assert token_weights(scores, 'rejected', 'none').tolist() == [[1, 1]]


@pytest.mark.parametrize(
    'change, message',
    [
        (dict(ids=torch.zeros(2, 4, dtype=torch.long)), r'do not fit: .*\(2, 3, 5\).*\(2, 4\)'),
        (dict(mask=torch.ones(2, 1, dtype=torch.bool)), 'do not fit'),
        (dict(negative_logits=torch.zeros(2, 3, 6)), 'one shape'),
        (dict(contrast=-0.5), 'contrast must be finite and at least 0, got -0.5'),
        (dict(contrast=math.nan), 'contrast'),
        (dict(chunk_size=0), 'chunk_size must be at least 1'),
    ],
)
def test_wrong_arguments_are_named(change, message):
    arguments = dict(
        positive_logits=torch.zeros(2, 3, 5),
        negative_logits=torch.zeros(2, 3, 5),
        ids=torch.zeros(2, 3, dtype=torch.long),
    )
    with pytest.raises(ValueError, match=message):
        contrastive_scores(**{**arguments, **change})


@pytest.mark.parametrize('wrong', [dict(side='best'), dict(weighted='all')])
def test_unknown_sides_are_named(wrong):
    with pytest.raises(ValueError, match='side must be'):
        token_weights(torch.zeros(1, 1), **{**dict(side='chosen', weighted='both'), **wrong})


def test_ranks_are_evenly_from_0_to_1_among_the_tokens():
    scores = torch.tensor([[0.0, 0.9, 0.001, 0.002, 0.0], [0.5, 0.4, 0.3, 0.2, 0.1]])
    mask = torch.tensor([[False, True, True, True, False], [True] * 5])
    expected = torch.tensor([[0, 1, 0, 0.5, 0], [1, 0.75, 0.5, 0.25, 0]])
    torch.testing.assert_close(score_ranks(scores, mask), expected)
    torch.testing.assert_close(score_ranks(scores[1:]), expected[1:])
    ties = torch.tensor([[0.0, 0.0, 0.5, 0.0, 0.7]])
    torch.testing.assert_close(score_ranks(ties), torch.tensor([[0.25, 0.25, 0.75, 0.25, 1]]))
    own = torch.tensor([[True, False, True, True, False]])
    torch.testing.assert_close(score_ranks(ties, own), torch.tensor([[0.25, 0, 1, 0.25, 0]]))
    alone = torch.tensor([[True, False]])
    assert score_ranks(torch.tensor([[0.3, 0.0]]), alone).tolist() == [[0.0, 0.0]]
