# Copyright (c) addp_mm contributors. Apache-2.0.
"""Classes and classifier-free guidance, on a small model with class slots."""

import math

import pytest
import torch
from helpers.tiny_alternating_model import tiny_conditional_model, tiny_model

from addp_mm.diffusion.token_space import ClassLabelError
from addp_mm.errors import ConfigError
from addp_mm.generation import AlternatingSampler, Guidance, SamplingSchedule
from addp_mm.generation.guidance import guided_logits

SCHEDULE = SamplingSchedule(num_steps=4)


def run(guidance=None, labels=None, num_images=3, model=None, **options):
    model = model or tiny_conditional_model()
    sampler = AlternatingSampler(model, model.grid_size, SCHEDULE, guidance)
    generator = torch.Generator().manual_seed(0)
    return sampler.run(num_images, generator, labels=labels, **options), model.batches


def same(one, two):
    return torch.equal(one.ids, two.ids) and torch.equal(one.images, two.images)


@pytest.mark.parametrize(
    'shape, weights',
    [
        ('constant', [3, 3, 3, 3]),
        ('linear', [0.75, 1.5, 2.25, 3]),
        # (1 - cos(45°)) / 2, …
        ('cosine', [0.439339828, 1.5, 2.560660172, 3]),
    ],
)
def test_weights_over_the_steps(shape, weights):
    guidance = Guidance(3.0, shape)
    assert [guidance.weight(step, 4) for step in range(4)] == pytest.approx(weights)
    assert guidance.weight(0, 1) == 3.0


def test_guided_logits_extrapolate_from_the_unconditional_ones():
    conditional, unconditional = torch.tensor([2.0, -1.0]), torch.tensor([1.0, 1.0])
    assert guided_logits(conditional, unconditional, 0.0).tolist() == [2, -1]
    assert guided_logits(conditional, unconditional, 1.5).tolist() == [3.5, -4]
    assert guided_logits(conditional.bfloat16(), unconditional, 1.0).dtype == torch.float32


def test_a_class_changes_the_images_and_its_start():
    without, _ = run(keep_steps=True)
    first, _ = run(labels=[0, 0, 0], keep_steps=True)
    mixed, _ = run(labels=torch.tensor([0, 2, -1]), keep_steps=True)
    assert not torch.equal(first.steps[0].images, without.steps[0].images)
    assert not torch.equal(first.ids[1], mixed.ids[1])
    assert torch.equal(first.ids[0], mixed.ids[0])
    assert torch.equal(without.ids[2], mixed.ids[2])


def test_scale_0_is_the_conditional_model_by_one_call_a_step():
    plain, calls = run(labels=[0, 1, 2])
    for shape in ('constant', 'linear', 'cosine'):
        guided, calls_guided = run(Guidance(0.0, shape), [0, 1, 2])
        assert same(plain, guided)
        assert calls == calls_guided == [3] * 4


def test_no_class_is_the_unconditional_model():
    plain, calls = run()
    assert calls == [3] * 4
    for labels in ([-1] * 3, torch.full((3,), -1)):
        for guidance in (None, Guidance(2.0)):
            found, calls = run(guidance, labels)
            assert same(plain, found)
            assert calls == [3] * 4
    # also for an image without class in a guided batch
    mixed, calls = run(Guidance(2.0), [0, -1, 1])
    assert torch.equal(mixed.ids[1], plain.ids[1])
    assert calls == [6] * 4


def test_a_guided_step_is_one_doubled_call_with_the_formula():
    labels, (samples, calls) = [0, 1, 2], run(Guidance(2.0, 'linear'), [0, 1, 2], keep_steps=True)
    assert calls == [6] * 4
    model, before = tiny_conditional_model(), samples.steps[0]
    classes, none = torch.tensor(labels), torch.full((3,), -1)
    conditional = model.predict_tokens(before.images, before.ids, before.mask, classes)
    unconditional = model.predict_tokens(before.images, before.ids, before.mask, none)
    logits = unconditional + (1 + 2.0 / 4) * (conditional - unconditional)
    after = samples.steps[1]
    expected = logits.log_softmax(-1).gather(-1, after.ids[..., None]).squeeze(-1)
    torch.testing.assert_close(after.confidence, expected)
    # masked positions show the mean code under the guided logits
    soft = (logits.softmax(-1) @ model.tokenizer.codebook).transpose(1, 2).unflatten(2, model.grid_size)
    hard = model.tokenizer.lookup(after.ids, *model.grid_size)
    mask = after.mask.view(3, 1, *model.grid_size)
    torch.testing.assert_close(after.images, model.tokenizer.decode(torch.where(mask, soft, hard)))


def test_batches_do_not_matter_with_classes_and_guidance():
    labels = [0, 1, 2, -1, 1]
    whole, _ = run(Guidance(1.5, 'cosine'), labels, 5)
    parts, calls = run(Guidance(1.5, 'cosine'), labels, 5, batch_size=2)
    assert calls == [4] * 8 + [2] * 4
    assert torch.equal(whole.ids, parts.ids)


def test_inpainting_takes_classes():
    model = tiny_conditional_model()
    sampler = AlternatingSampler(model, model.grid_size, SCHEDULE, Guidance(1.0))
    images = torch.rand(2, 3, 16, 12, generator=torch.Generator().manual_seed(1))
    mask = torch.arange(12).expand(2, 12) < 6
    samples = [
        sampler.inpaint(images, mask, torch.Generator().manual_seed(0), labels=labels) for labels in ([0, 0], [0, 1])
    ]
    assert torch.equal(samples[0].ids[0], samples[1].ids[0])
    assert not torch.equal(samples[0].ids[1], samples[1].ids[1])
    assert torch.equal(samples[0].ids[:, 6:], model.tokenizer.encode(images)[0][:, 6:])


@pytest.mark.parametrize(
    'labels, message',
    [
        ([0, 1], r'for each of 3 image\(s\), got torch.int64 of shape \(2,\)'),
        ([0.0, 1.0, 2.0], 'whole number .* torch.float32'),
        (torch.tensor([True, False, True]), 'whole number .* torch.bool'),
    ],
)
def test_labels_that_do_not_fit_are_named(labels, message):
    with pytest.raises(ConfigError, match=f'^labels must be .*{message}'):
        run(labels=labels)


@pytest.mark.parametrize('labels, wrong', [([0, 1, 3], '3'), ([7, -2, 7], '-2, 7')])
def test_classes_that_do_not_exist_are_named(labels, wrong):
    with pytest.raises(ClassLabelError, match=f'^class {wrong} does not exist: this model has the classes 0 to 2, '):
        run(labels=labels)


def test_a_model_without_classes_takes_neither_classes_nor_guidance():
    model = tiny_model()
    plain = AlternatingSampler(model, model.grid_size, SCHEDULE, Guidance(0.0))
    generator = torch.Generator().manual_seed(0)
    assert plain.run(1, generator, labels=[-1]).ids.shape == (1, 12)
    with pytest.raises(ClassLabelError, match='class 0 does not exist: this model is unconditional'):
        plain.run(1, generator, labels=[0])
    with pytest.raises(ConfigError, match='guidance of scale 2.0 needs a model that was trained with classes'):
        AlternatingSampler(model, model.grid_size, SCHEDULE, Guidance(2.0))


def test_guidance_of_another_type_is_refused():
    model = tiny_conditional_model()
    for wrong in (2.0, dict(scale=2.0)):
        with pytest.raises(ConfigError, match=r'guidance must be a Guidance, such as Guidance\(scale=2.0\), got '):
            AlternatingSampler(model, model.grid_size, SCHEDULE, wrong)


def test_guidance_without_labels_is_refused():
    with pytest.raises(ConfigError, match='guidance of scale 2.0 needs labels'):
        run(Guidance(2.0))


@pytest.mark.parametrize(
    'options, message',
    [
        (dict(scale=-1.0), 'scale of the guidance must .* got -1.0'),
        (dict(scale=math.nan), 'scale of the guidance must .* got nan'),
        (dict(scale=math.inf), 'scale of the guidance must .* got inf'),
        (dict(scale=1.0, shape='square'), "shape of the guidance must .* got 'square'"),
    ],
)
def test_a_bad_guidance_is_named(options, message):
    with pytest.raises(ConfigError, match=message):
        Guidance(**options)
