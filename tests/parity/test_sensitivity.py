# Copyright (c) addp_mm contributors. Apache-2.0.
"""Each tolerance of the parity tests is exceeded if a component is changed, one at a time."""

import copy
import types
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from helpers import published_reference as pr
from helpers.component_changes import (
    COMPONENTS,
    EXCHANGED_MASKS,
    LATENTS_OF_THE_PREDICTOR,
    PREDICTOR,
    SCHEDULE,
    START,
    TOKENIZER,
)
from helpers.trim_reference import DIGESTED, INTEGERS, WHOLE
from torch import nn

from addp_mm.diffusion import NoiseSchedule
from addp_mm.generation import alternating_steps


@pytest.fixture(scope='module')
def reference():
    return pr.read_reference()


@pytest.fixture(scope='module')
def trained(reference):
    return pr.load(reference)


@pytest.fixture(scope='module')
def inputs(trained, reference):
    tokens = pr.tokenize(trained, reference)
    return {**tokens, **pr.add_noise(trained, reference, tokens['z0'])}


@pytest.fixture
def model(trained):
    return copy.deepcopy(trained)


@pytest.mark.parametrize('name', TOKENIZER)
def test_a_changed_tokenizer_is_noticed(name, model, reference, monkeypatch):
    change, component = TOKENIZER[name]
    change(model.tokenizer, monkeypatch)
    assert component in pr.beyond_tolerance(pr.tokenize(model, reference), reference)


@pytest.mark.parametrize('name', PREDICTOR)
def test_a_changed_predictor_is_noticed(name, model, inputs, reference):
    PREDICTOR[name](model.predictor)
    broken = pr.beyond_tolerance(pr.add_noise(model, reference, inputs['z0']), reference)
    assert 'target_prob' in broken


def test_exchanged_masks_are_noticed(trained, inputs, reference):
    swapped = dict(reference.integers, mask_t=reference.integers['mask_next'], mask_next=reference.integers['mask_t'])
    results = pr.add_noise(trained, replace(reference, integers=swapped), inputs['z0'])
    assert pr.beyond_tolerance(results, reference) >= EXCHANGED_MASKS


@pytest.mark.parametrize(
    'component, name', [(component, name) for component in COMPONENTS for name in COMPONENTS[component]]
)
@torch.no_grad()
def test_a_change_after_the_noise_is_noticed(component, name, model, inputs, reference):
    COMPONENTS[component][name](model)
    broken = pr.beyond_tolerance(pr.predict(model, reference, inputs['x_t'], inputs['target_prob']), reference)
    assert component in broken


def test_a_gradient_into_the_word_embeddings_of_the_head_is_noticed(model, inputs, reference):
    def forward(self, states, words):
        return F.linear(self.norm(F.gelu(self.fc(states))), words) + self.bias

    model.head.forward = types.MethodType(forward, model.head)
    results = pr.predict(model, reference, inputs['x_t'], inputs['target_prob'])
    assert not pr.beyond_tolerance(results, reference)
    norm = pr.gradient_norms(model, results['loss'])['neck.word_embed.weight']
    assert norm != pytest.approx(reference.grad_norms['token_emb.weight'], rel=pr.GRADIENT_TOLERANCE)


def test_latents_of_the_predictor_in_generation_are_noticed(model, reference, monkeypatch):
    ids, mask = reference.integers['sampling.ids'], reference.mask('sampling.mask1')
    predicted = model.expected_latents(ids, mask)
    monkeypatch.setattr(alternating_steps, 'expected_latents', lambda *_: predicted)
    assert pr.beyond_tolerance(pr.sample(model, reference), reference) >= LATENTS_OF_THE_PREDICTOR


@pytest.mark.parametrize('name', START)
def test_a_change_at_the_start_of_generation_is_noticed(name, model, reference):
    START[name](model)
    assert 'sampling.step0_logits' in pr.beyond_tolerance(pr.sample(model, reference), reference)


def test_a_missing_or_additional_norm_is_noticed_in_the_features(model, reference):
    model.backbone.pre_norm = nn.Identity()
    assert 'pretrain_style_tokens' in pr.beyond_tolerance(pr.features(model, reference), reference)
    results = dict(finetune_tokens=pr.features(model, reference)['pretrain_style_tokens'])
    assert 'finetune_tokens' in pr.beyond_tolerance(results, reference)


@pytest.mark.parametrize('name', SCHEDULE)
def test_a_changed_noise_schedule_is_noticed(name, reference):
    change, component = SCHEDULE[name]
    assert component in pr.beyond_tolerance(pr.noise_levels(NoiseSchedule(**change)), reference)


def test_every_tolerance_has_a_change_that_it_notices():
    """A new result in the reference needs a change of its own here."""
    noticed = {component for _, component in (*TOKENIZER.values(), *SCHEDULE.values())}
    noticed |= {
        *COMPONENTS,
        *EXCHANGED_MASKS,
        *LATENTS_OF_THE_PREDICTOR,
        'sampling.step0_logits',
        'pretrain_style_tokens',
        'finetune_tokens',
    }
    # draws of the published run are inputs and not compared
    given = {'mask_t', 'mask_next', 'sampling.ids', 'sampling.mask1'}
    assert noticed == {*INTEGERS, *DIGESTED, *WHOLE} - given
