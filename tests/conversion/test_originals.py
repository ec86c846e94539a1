# Copyright (c) addp_mm contributors. Apache-2.0.
"""The reference forward passes give the results of the published implementation."""

import pytest
import torch
from helpers import published_reference as pr

from addp_mm.conversion.agreement import compared
from addp_mm.conversion.originals.addp import encoder_features, token_logits
from addp_mm.conversion.originals.mage import predicted_probabilities
from addp_mm.conversion.originals.vqgan import OriginalVQGAN


@pytest.fixture(scope='module')
def reference():
    return pr.read_reference()


def check(reference, **results):
    assert not pr.beyond_tolerance(results, reference), pr.differences(results, reference)


@torch.no_grad()
def test_maskgits_vqgan_is_as_published(reference):
    tokenizer = OriginalVQGAN(reference.state_dict, taming=False, prefix='vqgan.')
    ids = tokenizer.encode(reference.image)[1].argmin(-1)
    latents = tokenizer.codes[ids].transpose(1, 2).unflatten(2, (8, 8))
    check(reference, token_indices=ids, z0=latents, reconstruction=tokenizer.decode(latents))


@torch.no_grad()
def test_mages_predictor_is_as_published(reference):
    ids, mask = reference.integers['token_indices'], reference.mask('mask_t')
    check(
        reference,
        target_prob=predicted_probabilities(
            reference.state_dict, ids, mask, num_heads=4, decoder_num_heads=4, prefix='token_predictor.'
        ),
    )


@torch.no_grad()
def test_encoder_and_token_decoder_are_as_published(reference):
    mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    images = (reference.image - mean.view(1, 3, 1, 1)) / std.view(1, 3, 1, 1)
    check(reference, pretrain_style_tokens=encoder_features(reference.state_dict, images, num_heads=3))
    fine_tuned = {
        key: value for key, value in reference.state_dict.items() if not key.startswith(('tokenizer_norm.', 'norm.'))
    }
    check(reference, finetune_tokens=encoder_features(fine_tuned, images, num_heads=3))
    ids, mask = reference.integers['token_indices'], reference.mask('mask_t')
    logits = [
        token_logits(
            reference.state_dict,
            reference.results['encoder_out'][row : row + 1],
            ids[row : row + 1],
            mask[row : row + 1],
            num_heads=4,
        )
        for row in range(len(ids))
    ]
    check(reference, logits=torch.cat(logits))


def test_a_missing_weight_is_named(reference):
    rest = {key: value for key, value in reference.state_dict.items() if key != 'blocks.1.mlp.fc2.weight'}
    with pytest.raises(ValueError, match=r'has no blocks\.1\.mlp\.fc2\.weight, which the original implementation uses'):
        encoder_features(rest, reference.image, num_heads=3)


@pytest.mark.parametrize(
    'change, words',
    [
        (lambda x: x + 2e-3 * x.abs().max(), 'disagree: features by 2.0e-03 of the largest value'),
        (lambda x: x * float('nan'), 'features with NaN or Inf'),
        (lambda x: x[:, :1], r'give \(2, 1\), the original implementation \(2, 3\)'),
    ],
)
def test_results_that_differ_are_refused_with_the_difference(change, words):
    value = torch.rand(2, 3)
    assert 'differs by 0.0e+00 (ids), 0.0e+00 (features)' in compared(ids=(value, value), features=(value, value))
    with pytest.raises(ValueError, match=words):
        compared(ids=(value, value), features=(change(value), value))
