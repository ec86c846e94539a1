# Copyright (c) addp_mm contributors. Apache-2.0.
"""Equality with the published implementation, component by component and end to end."""

import pytest
import torch
from helpers import published_reference as pr

from addp_mm.diffusion import NoiseSchedule
from addp_mm.layouts.published import convert_published


@pytest.fixture(scope='module')
def reference():
    return pr.read_reference()


@pytest.fixture(scope='module')
def model(reference):
    return pr.load(reference)


@pytest.fixture(scope='module')
def training(model, reference):
    """All results of a training step; each component gets the output of the one before it."""
    tokens = pr.tokenize(model, reference)
    noisy = pr.add_noise(model, reference, tokens['z0'])
    return {**tokens, **noisy, **pr.predict(model, reference, noisy['x_t'], noisy['target_prob'])}


def _hold(results, reference):
    assert not pr.beyond_tolerance(results, reference), pr.differences(results, reference)


def test_the_tokenizer_encodes_and_decodes_as_published(training, reference):
    _hold({name: training[name] for name in ('token_indices', 'z0', 'reconstruction')}, reference)


def test_the_predictor_and_the_noisy_images_are_as_published(training, reference):
    _hold({name: training[name] for name in ('z_t_pred', 'target_prob', 'x_t')}, reference)


def test_encoder_decoder_and_loss_are_as_published(training, reference):
    _hold({name: training[name] for name in ('encoder_out', 'logits', 'loss')}, reference)


def test_gradient_norms_are_as_published(model, training, reference):
    norms = pr.gradient_norms(model, training['loss'])
    # One number for each parameter, instead of its tensor, maps this package's names to the
    # published ones.
    marked = {
        key: torch.full_like(value, index, dtype=torch.float32)
        for index, (key, value) in enumerate(reference.state_dict.items())
    }
    published = list(reference.state_dict)
    names = {name: published[int(value.flatten()[0])] for name, value in convert_published(marked).items()}
    assert {names[name] for name in norms} == set(reference.grad_norms)
    for name, norm in norms.items():
        assert norm == pytest.approx(reference.grad_norms[names[name]], rel=pr.GRADIENT_TOLERANCE), name


def test_a_sampling_step_is_as_published(model, reference):
    _hold(pr.sample(model, reference), reference)


def test_backbone_tokens_are_as_published_in_both_styles(model, reference):
    _hold(pr.features(model, reference), reference)


def test_noise_levels_are_as_published(reference):
    schedule = NoiseSchedule()
    _hold(pr.noise_levels(schedule), reference)
    torch.testing.assert_close(schedule.probabilities, reference.results['mask_ratio_probs'], rtol=1e-6, atol=0)


def test_masks_are_nested_and_of_one_size(reference):
    mask, mask_next = reference.mask('mask_t'), reference.mask('mask_next')
    assert not (mask & ~mask_next).any()
    assert len(set(mask.sum(1).tolist())) == len(set(mask_next.sum(1).tolist())) == 1


@torch.no_grad()
def test_no_class_is_the_published_model_bit_for_bit(model, training, reference):
    """Label -1 gives the bits of the tests above, and the published weights have no classes."""
    ids, mask, mask_next = (reference.integers[name] for name in ('token_indices', 'mask_t', 'mask_next'))
    mask, mask_next, labels = mask.bool(), mask_next.bool(), torch.full((len(ids),), -1)
    assert model.num_classes == 0
    assert torch.equal(model.expected_latents(ids, mask_next, labels), training['z_t_pred'])
    noisy, target = model.add_noise(ids, training['z0'], mask, mask_next, labels)
    assert torch.equal(noisy, training['x_t'])
    torch.testing.assert_close(target, training['target_prob'][mask], rtol=1e-6, atol=1e-8)
    states = model.neck.decode(model.extract_feat(noisy)[-1], ids, mask, labels)
    assert torch.equal(model.head(states, model.neck.word_embed.weight), training['logits'])
