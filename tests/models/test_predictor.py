# Copyright (c) addp_mm contributors. Apache-2.0.
"""The masked token predictor."""

import pytest
import torch

from addp_mm.models.predictors import MaskedTokenPredictor

SPACE = dict(codebook_size=16, num_class_slots=3, fake_class_slot=1)


@pytest.fixture
def predictor():
    return MaskedTokenPredictor(6, 8, 2, 2, decoder_embed_dims=12, decoder_num_layers=1, token_space=SPACE).eval()


@pytest.fixture
def sequence():
    ids = torch.tensor([[1, 2, 3, 4, 5, 6], [15, 14, 13, 12, 11, 10]])
    return ids, torch.tensor([[True, False, True, False, False, False], [False] * 5 + [True]])


def test_probabilities_are_over_the_codes_only(predictor, sequence):
    logits, probabilities = predictor.logits(*sequence), predictor(*sequence)
    assert logits.shape == (2, 6, 20)
    assert probabilities.shape == (2, 6, 16)
    torch.testing.assert_close(probabilities, logits[..., :16].softmax(-1))


@pytest.mark.parametrize('kept', [None, torch.tensor([[1, 3], [0, 4]])])
def test_masked_logits_are_the_logits_at_masked_positions(predictor, sequence, kept):
    """The same products in float64, and their gradients; the head sees no other position."""
    predictor, mask, seen = predictor.double(), sequence[1], []
    predictor.head.register_forward_hook(lambda _, given, out: seen.append(out.numel() // 20))
    results = [predictor.masked_logits(*sequence, kept), predictor.logits(*sequence, kept)[mask]]
    assert seen == [3, 12]
    torch.testing.assert_close(*results, atol=1e-12, rtol=1e-12)
    gradients = [torch.autograd.grad(one.square().sum(), [*predictor.parameters()]) for one in results]
    for ours, expected in zip(*gradients, strict=True):
        torch.testing.assert_close(ours, expected, atol=1e-12, rtol=1e-12)


@pytest.mark.parametrize('kept', [None, torch.tensor([[1, 3], [0, 4]])])
def test_logits_of_the_codes_are_the_first_of_the_vocabulary(predictor, sequence, kept):
    predictor, mask, seen = predictor.double(), sequence[1], []
    whole = predictor.logits(*sequence, kept)[..., :16]
    predictor.head.register_forward_hook(lambda _, given, out: seen.append(out.shape))
    codes = predictor.logits(*sequence, kept, codes_only=True)
    masked = predictor.masked_logits(*sequence, kept, codes_only=True)
    assert seen == [(2, 6, 16), (3, 16)]
    torch.testing.assert_close(codes, whole, atol=1e-12, rtol=1e-12)
    torch.testing.assert_close(masked, whole[mask], atol=1e-12, rtol=1e-12)


def test_probabilities_at_some_positions(predictor, sequence):
    rows, predictor, seen = torch.tensor([7, 0, 11]), predictor.double(), []
    whole = predictor(*sequence)
    predictor.head.register_forward_hook(lambda _, given, out: seen.append(out.shape))
    found = predictor(*sequence, rows=rows)
    assert seen == [(3, 16)]
    torch.testing.assert_close(found, whole.flatten(0, 1)[rows], atol=1e-6, rtol=1e-6)  # softmax in float32


def test_only_visible_ids_change_the_prediction(predictor, sequence):
    ids, mask = sequence
    hidden = torch.where(mask, torch.zeros_like(ids), ids)
    assert torch.equal(predictor(ids, mask), predictor(hidden, mask))
    changed = ids.clone()
    changed[:, 1] = 9
    assert not torch.equal(predictor(ids, mask)[:, 0], predictor(changed, mask)[:, 0])


def test_all_parameters_are_trained_by_masked_token_modelling(predictor, sequence):
    predictor.train()
    ids, mask = sequence
    torch.nn.functional.cross_entropy(predictor.logits(ids, mask)[mask], ids[mask]).backward()
    for name, parameter in predictor.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.abs().sum() > 0, name


def test_dropout_is_active_in_training_mode_only(predictor, sequence):
    assert torch.equal(predictor(*sequence), predictor(*sequence))
    predictor.train()
    assert not torch.equal(predictor(*sequence), predictor(*sequence))


def test_sequences_of_another_length_are_refused(predictor, sequence):
    ids, mask = sequence
    with pytest.raises(ValueError, match=r'\(B, 6\)'):
        predictor(ids[:, :5], mask[:, :5])
    with pytest.raises(ValueError, match=r'\(B, 6\)'):
        predictor(ids, mask[:1])
