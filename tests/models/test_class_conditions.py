# Copyright (c) addp_mm contributors. Apache-2.0.
"""Class-conditional predictor, token decoder and ADDP, and training with dropped labels."""

import copy
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from helpers import tiny_components
from helpers.tiny_components import images, noise
from mmengine.model import MMDistributedDataParallel
from mmpretrain.structures import DataSample

from addp_mm.diffusion.token_space import ClassLabelError, TokenSpace
from addp_mm.models.layers.errors import OptionError
from addp_mm.models.layers.positions import visible_positions
from addp_mm.models.predictors import MaskedTokenPredictor
from addp_mm.models.selfsup import PredictorPretrain
from addp_mm.models.selfsup.class_labels import drop_labels, read_labels

SPACE = dict(codebook_size=16, num_class_slots=4, fake_class_slot=1, num_classes=3)
UNCONDITIONAL = dict(SPACE, num_classes=0)
NO_CLASS = torch.tensor([-1, -1, -1])


def addp(space=SPACE, **options):
    """A model in training mode without dropout; its weights do not depend on the classes."""
    torch.manual_seed(0)
    changes = {name: dict(token_space=space) for name in ('predictor', 'neck', 'head')}
    model = tiny_components.build(**changes, **options)
    for parameter in (model.neck.word_embed.weight, model.predictor.word_embed.weight):
        parameter.data.mul_(20)  # so that a class changes more than rounding
    return model.train()


def predictor_training(space=SPACE, **options):
    torch.manual_seed(0)
    predictor = MaskedTokenPredictor(16, 8, 1, 2, decoder_num_layers=1, drop_rate=0.0, token_space=space)
    predictor.word_embed.weight.data.mul_(20)
    return PredictorPretrain(None, predictor, drop_ratio=0.5, **options).train()


def tokens():
    generator = torch.Generator().manual_seed(3)
    ids = torch.randint(16, (3, 16), generator=generator)
    mask = torch.zeros(3, 16, dtype=torch.bool)
    mask[:, :9] = True
    return ids, mask


def samples(*labels):
    return [DataSample() if label is None else DataSample().set_gt_label(label) for label in labels]


# --- components


@torch.no_grad()
def test_a_class_replaces_the_fake_class_in_the_predictor():
    """Equal to an unconditional predictor whose fake class has the slot of the class."""
    predictor, (ids, mask) = addp().predictor, tokens()
    for label, slot in ((0, 0), (1, 2), (2, 3)):
        other = copy.deepcopy(predictor)
        other.token_space = replace(TokenSpace(**UNCONDITIONAL), fake_class_slot=slot)
        assert torch.equal(predictor(ids, mask, torch.full((3,), label)), other(ids, mask))


@torch.no_grad()
def test_a_class_replaces_the_mask_token_at_the_class_position_of_the_token_decoder():
    neck, (ids, mask) = addp().neck, tokens()
    features = torch.randn(3, 17, 8, generator=torch.Generator().manual_seed(4))
    found = neck.decode(features, ids, mask, torch.tensor([2, -1, 0]))
    first = [neck.word_embed.weight[16 + 3], neck.mask_token[0, 0], neck.word_embed.weight[16]]
    positions = visible_positions(mask, int((~mask[0]).sum()))
    x = torch.cat([neck._image_positions(features, mask, None), neck._visible_tokens(ids, positions)], dim=1)
    x[:, 0] = torch.stack(first) + neck.pos_embed[0, 0]
    for block in neck.blocks:
        x = block(x)
    assert torch.equal(found, neck.norm(x))


@torch.no_grad()
def test_no_class_equals_no_labels_bit_for_bit_and_classes_differ():
    model, (ids, mask) = addp().eval(), tokens()
    calls = dict(
        logits=lambda labels: model.predictor.logits(ids, mask, labels=labels),
        predictor=lambda labels: model.predictor(ids, mask, labels),
        predict_tokens=lambda labels: model.predict_tokens(images(), ids, mask, labels),
        expected_latents=lambda labels: model.expected_latents(ids, mask, labels),
    )
    for name, call in calls.items():
        assert torch.equal(call(None), call(NO_CLASS)), name
        results = [call(torch.full((3,), label)) for label in (-1, 0, 1, 2)]
        for k, one in enumerate(results):
            assert all((one - other).abs().max() > 1e-4 for other in results[k + 1 :]), name
        mixed = call(torch.tensor([1, -1, 2]))
        for row, k in enumerate((2, 0, 3)):
            torch.testing.assert_close(mixed[row], results[k][row])


@torch.no_grad()
def test_labels_follow_rows_with_different_numbers_of_masked_positions():
    model, (ids, mask) = addp().eval(), tokens()
    mask[1, 9:12], mask[2, :4] = True, False
    labels = torch.tensor([2, 0, 1])
    together = model.predict_tokens(images(), ids, mask, labels)
    for row in range(3):
        one = slice(row, row + 1)
        torch.testing.assert_close(together[one], model.predict_tokens(images()[one], ids[one], mask[one], labels[one]))


def test_labels_that_do_not_fit_are_refused():
    model, (ids, mask) = addp().eval(), tokens()
    with pytest.raises(ClassLabelError, match='class 3 does not exist'):
        model.predictor(ids, mask, torch.tensor([0, 1, 3]))
    with pytest.raises(ClassLabelError, match='class 3 does not exist'):
        model.predict_tokens(images(), ids, mask, torch.tensor([0, 1, 3]))
    with pytest.raises(ClassLabelError, match='this model is unconditional'):
        addp(UNCONDITIONAL).eval().expected_latents(ids, mask, torch.tensor([0, -1, -1]))
    for call in (model.expected_latents, lambda *given: model.predict_tokens(images(), *given)):
        with pytest.raises(ValueError, match=r'labels must be \(B,\) with B = 3, got \(2,\)'):
            call(ids, mask, torch.tensor([0, 1]))


def test_the_number_of_classes():
    assert (addp().num_classes, addp(UNCONDITIONAL).num_classes) == (3, 0)
    assert (predictor_training().num_classes, predictor_training(UNCONDITIONAL).num_classes) == (3, 0)


@pytest.mark.parametrize('name', ['predictor', 'neck', 'head'])
def test_components_with_other_classes_are_refused(name):
    changes = {part: dict(token_space=SPACE) for part in ('predictor', 'neck', 'head')}
    changes[name] = dict(token_space=UNCONDITIONAL)
    with pytest.raises(OptionError, match='predictor, neck and head have .*0.* classes: set the same num_classes'):
        tiny_components.build(**changes)
    changes[name] = dict(token_space=dict(SPACE, num_class_slots=5))
    with pytest.raises(OptionError, match='must share the token space'):
        tiny_components.build(**changes)


# --- labels of a batch


def test_labels_are_read_from_data_samples():
    space = TokenSpace(**SPACE)
    assert read_labels(samples(2, 0, -1), space, torch.device('cpu')).tolist() == [2, 0, -1]
    assert read_labels([SimpleNamespace(gt_label=1)], space, torch.device('cpu')).tolist() == [1]
    assert read_labels(samples(2, None), space, torch.device('cpu'), required=False).tolist() == [2, -1]
    for nothing in (None, samples(None, None)):
        assert read_labels(nothing, space, torch.device('cpu'), required=False) is None
        with pytest.raises(ClassLabelError, match=r'the model has 3 classes .* no label \(gt_label\)'):
            read_labels(nothing, space, torch.device('cpu'))
    with pytest.raises(ClassLabelError, match='a training image has no label'):
        read_labels(samples(2, None), space, torch.device('cpu'))
    with pytest.raises(ClassLabelError, match='class 3 does not exist'):
        read_labels(samples(2, 3), space, torch.device('cpu'))
    with pytest.raises(ClassLabelError, match=r'an image has 2 labels \(\[0, 1\]\)'):
        read_labels(samples(2, [0, 1]), space, torch.device('cpu'))
    assert read_labels(samples(2, 5), TokenSpace(**UNCONDITIONAL), torch.device('cpu')) is None


def test_labels_are_dropped_at_the_rate():
    labels = torch.arange(3).repeat(10000)
    generator = torch.Generator().manual_seed(0)
    for rate in (0.1, 0.5):
        kept = drop_labels(labels, rate, generator)
        dropped = kept == -1
        # six standard deviations of the binomial distribution
        assert abs(dropped.float().mean().item() - rate) < 6 * (rate * (1 - rate) / len(labels)) ** 0.5
        assert torch.equal(kept[~dropped], labels[~dropped])
        for label in range(3):  # whatever the class
            assert abs(dropped[labels == label].float().mean().item() - rate) < 0.03
    assert (drop_labels(labels, 1.0, generator) == -1).all()
    before = generator.get_state()
    assert drop_labels(labels, 0.0, generator) is labels
    assert torch.equal(generator.get_state(), before)
    same = [drop_labels(labels, 0.5, torch.Generator().manual_seed(1)) for _ in range(2)]
    assert torch.equal(*same)


@pytest.mark.parametrize('rate', [-0.1, 1.1])
def test_a_drop_rate_is_a_share(rate):
    with pytest.raises(OptionError, match=r'class_drop_rate must be in \[0, 1\]'):
        predictor_training(class_drop_rate=rate)
    with pytest.raises(OptionError, match=r'class_drop_rate must be in \[0, 1\]'):
        addp(class_drop_rate=rate)


# --- training


def step(model, labels):
    """Loss and gradients of a step, and the state of the process's generator after it."""
    model.zero_grad()
    torch.manual_seed(7)
    inputs = tokens()[0] if isinstance(model, PredictorPretrain) else images()
    losses = model(inputs, None if labels is None else samples(*labels), mode='loss')
    losses['loss'].backward()
    gradients = {name: p.grad for name, p in model.named_parameters() if p.requires_grad}
    return losses['loss'], gradients, torch.get_rng_state()


@pytest.mark.parametrize('build', [predictor_training, addp])
def test_an_unconditional_training_is_not_changed_by_labels(build):
    """The same loss and gradients as without data samples, and no number more is drawn."""
    model = build(UNCONDITIONAL)
    assert model.class_drop_rate == 0.1
    loss, gradients, state = step(model, None)
    other, again, state_after = step(model, [5, 0, 9])
    assert torch.equal(loss, other)
    assert torch.equal(state, state_after)
    assert all(torch.equal(gradients[name], again[name]) for name in gradients)


@pytest.mark.parametrize('build', [predictor_training, addp])
def test_dropping_every_label_is_the_unconditional_training(build):
    loss, gradients, _ = step(build(UNCONDITIONAL), None)
    dropped, found, _ = step(build(class_drop_rate=1.0), [0, 1, 2])
    assert torch.equal(loss, dropped)
    assert gradients.keys() == found.keys()
    for name, gradient in gradients.items():
        torch.testing.assert_close(found[name], gradient, rtol=0, atol=1e-7, msg=name)
    conditional, found, _ = step(build(class_drop_rate=0.0), [0, 1, 2])
    assert (conditional - loss).abs() > 1e-4
    # the embeddings of the three classes learn
    (words,) = (value for name, value in found.items() if name.endswith('word_embed.weight'))
    assert (words[[16, 18, 19]].abs().sum(1) > 0).all()


def test_predictor_and_token_decoder_get_the_same_labels():
    model, seen = addp(class_drop_rate=0.5), []
    model.predictor.register_forward_hook(lambda _, given, __: seen.append(given[2]))
    model.neck.register_forward_hook(lambda _, given, __: seen.append(given[3]))
    drawn = set()
    for seed in range(8):
        model.loss(images(), samples(0, 1, 2), noise(seed=seed))
        of_predictor, of_neck = seen[-2:]
        assert torch.equal(of_predictor, of_neck.repeat(2))
        drawn.add(tuple(of_neck.tolist()))
    assert {label for row in drawn for label in row} == {-1, 0, 1, 2}
    model.eval()
    model.loss(images(), samples(0, 1, 2), noise())
    assert seen[-1].tolist() == [0, 1, 2]


def test_labels_and_noise_determine_the_loss():
    model = addp(class_drop_rate=0.5)
    losses = [model.loss(images(), samples(0, 1, 2), noise())['loss'] for _ in range(2)]
    assert torch.equal(*losses)


@pytest.mark.parametrize('build', [predictor_training, addp])
def test_training_without_labels_or_with_wrong_ones_is_refused(build):
    model = build()
    for labels, words in (
        (None, 'a training image has no label'),
        ([0, None, 1], 'a training image has no label'),
        ([0, 3, 1], 'class 3 does not exist: this model has the classes 0 to 2'),
    ):
        with pytest.raises(ClassLabelError, match=words):
            step(model, labels)


def test_predictions_of_masked_tokens_use_the_labels_that_there_are():
    model, (ids, _) = predictor_training().eval(), tokens()

    def likelihood(data_samples):
        return torch.stack([one.log_likelihood for one in model(ids, data_samples, mode='predict')])

    assert torch.equal(likelihood(None), likelihood(samples(None, None, None)))
    assert torch.equal(likelihood(None), likelihood(samples(-1, -1, -1)))
    with_classes = likelihood(samples(0, 1, None))
    assert not torch.equal(with_classes[0], likelihood(None)[0])
    torch.testing.assert_close(with_classes[2], likelihood(None)[2])


def test_distributed_training_finds_a_gradient_of_every_parameter(tmp_path):
    torch.distributed.init_process_group('gloo', init_method=f'file://{tmp_path}/store', rank=0, world_size=1)
    try:
        for rate in (0.0, 1.0):
            for model, inputs in (
                (addp(class_drop_rate=rate), images()),
                (predictor_training(class_drop_rate=rate), tokens()[0]),
            ):
                wrapped = MMDistributedDataParallel(module=model)
                for _ in range(2):
                    wrapped(inputs, samples(0, 1, 2), mode='loss')['loss'].backward()
                assert all(p.grad is not None for p in model.parameters() if p.requires_grad)
    finally:
        torch.distributed.destroy_process_group()
