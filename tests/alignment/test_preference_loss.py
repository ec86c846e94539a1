# Copyright (c) addp_mm contributors. Apache-2.0.
"""The losses equal the published ones and independent computations of the papers' formulas."""

import math

import pytest
import torch
from helpers.published_cdpo import SIDES, published_scores, reference

from addp_mm.alignment import PreferenceLoss, SequenceLogProbs, sequential_kl, token_log_probs, token_weights
from addp_mm.alignment.token_metrics import preference_metrics, weight_on_top_tenth
from addp_mm.errors import ConfigError


def published_side(side: str, weighted: str) -> SequenceLogProbs:
    found = reference()[side]
    weights = token_weights(published_scores(side), side, weighted)
    return SequenceLogProbs(found['policy_logps'], found['reference_logps'], found['mask'], weights)


@pytest.mark.parametrize('weighted, name', [('rejected', 'only_rejected'), ('both', 'both')])
@pytest.mark.parametrize('form, code', [('token', 'released'), ('sequence', 'paper')])
def test_cdpo_is_the_published_loss(weighted, name, form, code):
    loss = PreferenceLoss(beta=reference()['beta'], form=form)
    sides = [published_side(side, weighted) for side in SIDES]
    torch.testing.assert_close(loss.losses(*sides), reference()[f'{code}_losses_{name}'], rtol=0, atol=1e-6)
    torch.testing.assert_close(loss(*sides), reference()[f'{code}_loss_{name}'], rtol=0, atol=1e-6)


def random_side(batch_size=3, length=5, seed=0, weights=True) -> SequenceLogProbs:
    generator = torch.Generator().manual_seed(seed)
    policy, frozen, weight, kl = (
        torch.rand(batch_size, length, generator=generator, dtype=torch.float64) for _ in range(4)
    )
    mask = torch.arange(length) < torch.randint(1, length + 1, (batch_size, 1), generator=generator)
    return SequenceLogProbs(-policy, -frozen, mask, weight if weights else None, kl.sum(1))


def test_dpo_label_smoothing_and_rpo_are_the_papers_formulas():
    chosen, rejected = random_side(seed=1, weights=False), random_side(seed=2, weights=False)
    expected = []
    for row in range(3):
        log_ratio, likelihood = [], []
        for side in (chosen, rejected):
            length = int(side.mask[row].sum())
            log_ratio.append(float(side.policy[row, :length].sum() - side.reference[row, :length].sum()))
            likelihood.append(float(side.policy[row, :length].sum()) / length)
        margin = 0.3 * (log_ratio[0] - log_ratio[1])
        smoothed = 0.9 * math.log1p(math.exp(-margin)) + 0.1 * math.log1p(math.exp(margin))
        expected.append(smoothed - 0.5 * likelihood[0])
    loss = PreferenceLoss(beta=0.3, label_smoothing=0.1, likelihood_weight=0.5)
    assert loss(chosen, rejected).item() == pytest.approx(sum(expected) / 3)


def test_tdpo_subtracts_the_divergences_and_trains_that_of_the_rejected_side():
    chosen, rejected = random_side(seed=1, weights=False), random_side(seed=2, weights=False)
    for side in (chosen, rejected):
        side.kl.requires_grad_(True)
    plain, tdpo = PreferenceLoss(beta=0.3), PreferenceLoss(beta=0.3, kl_weight=0.5)
    margins = tdpo.margins(chosen, rejected)
    torch.testing.assert_close(margins, plain.margins(chosen, rejected) - 0.3 * 0.5 * (rejected.kl - chosen.kl))
    tdpo(chosen, rejected).backward()
    assert chosen.kl.grad is None
    assert (rejected.kl.grad > 0).all()


def test_the_sequential_divergence_is_that_of_the_reference_from_the_policy():
    policy, frozen = torch.randn(2, 2, 3, 7, dtype=torch.float64)
    mask = torch.tensor([[True, True, False], [True, False, False]])
    one = torch.distributions.kl_divergence(
        torch.distributions.Categorical(logits=frozen), torch.distributions.Categorical(logits=policy)
    )
    torch.testing.assert_close(sequential_kl(policy, frozen, mask), (one * mask).sum(1))
    torch.testing.assert_close(sequential_kl(policy, frozen), one.sum(1))
    assert sequential_kl(policy, policy).abs().max() < 1e-12


@pytest.mark.parametrize(
    'options',
    [
        dict(),
        dict(form='token'),
        dict(label_smoothing=0.2, likelihood_weight=0.7),
        dict(form='token', label_smoothing=0.2),
        dict(kl_weight=0.5),
    ],
)
def test_gradients(options):
    logits = torch.randn(2, 2, 4, 6, dtype=torch.float64, requires_grad=True)
    frozen, ids = torch.randn(2, 2, 4, 6, dtype=torch.float64), torch.randint(6, (2, 2, 4))
    mask = torch.tensor([[True, True, True, False], [True, True, False, False]])
    loss, weights = PreferenceLoss(beta=0.4, **options), torch.rand(2, 2, 4, dtype=torch.float64)

    def of_logits(values):
        sides = []
        for side in range(2):
            own = token_log_probs(values[side], ids[side], mask), token_log_probs(frozen[side], ids[side], mask)
            kl = sequential_kl(values[side], frozen[side], mask)
            # its gradient is stopped on purpose, and finite differences would see it
            sides.append(SequenceLogProbs(*own, mask, weights[side], torch.zeros_like(kl) if side == 0 else kl))
        return loss(*sides)

    assert torch.autograd.gradcheck(of_logits, (logits,))


def test_a_token_of_weight_0_has_no_gradient_and_padding_changes_nothing():
    chosen = SequenceLogProbs(torch.tensor([[-1.0, -2.0]], requires_grad=True), torch.tensor([[-1.5, -1.5]]))
    policy = torch.tensor([[-1.0, -2.0, math.nan]], requires_grad=True)
    rejected = SequenceLogProbs(
        policy,
        torch.tensor([[-1.5, -1.5, math.nan]]),
        torch.tensor([[True, True, False]]),
        torch.tensor([[1.0, 0.0, math.nan]]),
    )
    loss = PreferenceLoss()(chosen, rejected)
    loss.backward()
    assert loss.isfinite()
    assert policy.grad[0, 0] > 0
    assert policy.grad[0, 1] == 0


def test_equal_models_lose_the_logarithm_of_two():
    side = SequenceLogProbs(torch.full((2, 3), -1.0), torch.full((2, 3), -1.0))
    for form in ('sequence', 'token'):
        assert PreferenceLoss(form=form)(side, side).item() == pytest.approx(math.log(2))


def test_metrics_are_rewards():
    chosen, rejected = torch.tensor([[1.0], [0.0]]), torch.tensor([[-1.0], [1.0]])
    metrics = {name: value.item() for name, value in preference_metrics(chosen, rejected, beta=0.1).items()}
    expected = dict(reward_margin=0.05, reward_accuracy=0.5, chosen_reward=0.05, rejected_reward=0.0)
    assert metrics == {name: pytest.approx(value, abs=1e-7) for name, value in expected.items()}


def test_the_share_of_weight_on_the_top_tenth():
    weights = torch.ones(2, 10)
    assert weight_on_top_tenth(weights).item() == pytest.approx(0.1)
    weights[0, 0] = 20.0
    assert weight_on_top_tenth(weights).item() == pytest.approx(21 / 39)
    mask = torch.zeros(2, 10, dtype=torch.bool)
    mask[1] = True
    assert weight_on_top_tenth(weights, mask).item() == pytest.approx(0.1)


@pytest.mark.parametrize(
    'options, message',
    [
        (dict(form='word'), "form must be one of .*'sequence', 'token'.*, got 'word'"),
        (dict(beta=0), 'beta must be positive and finite, got 0'),
        (dict(beta=math.nan), 'beta'),
        (dict(label_smoothing=0.5), r'label_smoothing must be in \[0, 0.5\)'),
        (dict(likelihood_weight=-1), 'likelihood_weight must be finite and at least 0'),
        (dict(kl_weight=math.inf), 'kl_weight'),
        (dict(kl_weight=0.5, form='token'), "needs form='sequence'"),
    ],
)
def test_options_out_of_range(options, message):
    with pytest.raises(ConfigError, match=message):
        PreferenceLoss(**options)


def test_shapes_that_do_not_fit():
    with pytest.raises(ValueError, match=r"'policy': \(2, 3\), 'reference': \(2, 4\)"):
        SequenceLogProbs(torch.zeros(2, 3), torch.zeros(2, 4))
    short, long = (SequenceLogProbs(torch.zeros(2, size), torch.zeros(2, size)) for size in (3, 4))
    assert PreferenceLoss()(short, long).item() == pytest.approx(math.log(2))
    with pytest.raises(ValueError, match='equal positions'):
        PreferenceLoss(form='token')(short, long)
    with pytest.raises(ValueError, match='needs the sequential divergence'):
        PreferenceLoss(kl_weight=0.1)(short, long)
