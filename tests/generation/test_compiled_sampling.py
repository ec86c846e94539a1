# Copyright (c) addp_mm contributors. Apache-2.0.
"""A compiled sampler: the same samples, and one compilation for all steps."""

import pytest
import torch
from helpers import tiny_components
from helpers.tiny_addp import build_model

from addp_mm.benchmark.compilations import recorded_compilations
from addp_mm.generation import AlternatingSampler, Guidance, SamplingSchedule

CLASSES = dict(codebook_size=16, num_class_slots=4, fake_class_slot=1, num_classes=3)


def samples(model, compile, guidance=None, labels=None):
    """Samples of two batches, and what was compiled after each step."""
    sampler = AlternatingSampler(model, model.latent_size, SamplingSchedule(7), guidance, compile)
    counts = []
    with recorded_compilations() as compilations:
        generator = torch.Generator().manual_seed(0)
        progress = lambda _: counts.append(compilations.counts)  # noqa: E731
        found = sampler.run(6, generator, batch_size=3, progress=progress, labels=labels)
    return found, counts, compilations.reasons


@pytest.mark.slow
@pytest.mark.parametrize('guidance', [None, Guidance(2.0)])
def test_samples_are_those_without_compilation_and_later_steps_compile_nothing(guidance):
    model, labels = build_model(), None
    if guidance is not None:
        torch.manual_seed(0)
        classes = {name: dict(token_space=CLASSES) for name in ('predictor', 'neck', 'head')}
        model, labels = tiny_components.build(**classes), [0, 1, -1, 2, 0, -1]
    model = model.requires_grad_(False).eval()
    expected, counts, _ = samples(model, None, guidance, labels)
    assert counts == [(0, 0)] * 14
    found, counts, reasons = samples(model, dict(backend='eager'), guidance, labels)
    assert torch.equal(found.ids, expected.ids)
    torch.testing.assert_close(found.images, expected.images)
    # backbone, token decoder (not while fewer than two tokens are visible), head and pixels
    assert counts[0] == (3, 0)
    assert counts[6:] == [(4, 0)] * 8, reasons
