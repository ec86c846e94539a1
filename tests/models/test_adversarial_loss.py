# Copyright (c) addp_mm contributors. Apache-2.0.
"""Losses of generator and discriminator against independent computations."""

import numpy as np
import pytest
import torch
from torch import nn

from addp_mm.models.discriminators import PatchDiscriminator
from addp_mm.models.discriminators.patch_discriminator import frozen_logits
from addp_mm.models.losses.adversarial_loss import (
    AdversarialSchedule,
    LeCAM,
    adaptive_weight,
    hinge_discriminator_loss,
    hinge_generator_loss,
    r1_penalty,
)


def logits(seed):
    return 2 * torch.randn(3, 1, 2, 2, generator=torch.Generator().manual_seed(seed))


def test_hinge():
    real, fake = logits(0), logits(1)
    expected = (np.maximum(0, 1 - real.numpy()).mean() + np.maximum(0, 1 + fake.numpy()).mean()) / 2
    assert hinge_discriminator_loss(real, fake).item() == pytest.approx(expected, rel=1e-6)
    assert hinge_generator_loss(fake).item() == pytest.approx(-fake.numpy().mean(), rel=1e-5)


def test_lecam_against_its_formula_over_three_batches():
    lecam, decay = LeCAM(0.9), 0.9
    means = None
    for step in range(3):
        real, fake = logits(2 * step), logits(2 * step + 1)
        batch = np.array([real.mean(), fake.mean()])
        means = batch if means is None else means
        expected = ((real.numpy() - means[1]) ** 2).mean() + ((fake.numpy() - means[0]) ** 2).mean()
        assert lecam(real, fake).item() == pytest.approx(expected, rel=1e-5)
        means = decay * means + (1 - decay) * batch
    np.testing.assert_allclose(lecam.means.numpy(), means, rtol=1e-5)
    lecam.eval()(logits(8), logits(9))
    np.testing.assert_allclose(lecam.means.numpy(), means, rtol=1e-5)


def test_r1_against_finite_differences():
    torch.manual_seed(0)
    discriminator = nn.Sequential(nn.Conv2d(2, 3, 3, padding=1), nn.Softplus(), nn.Conv2d(3, 1, 3)).double()
    images = torch.rand(2, 2, 4, 4, dtype=torch.float64)
    asked = images.clone().requires_grad_()
    penalty = r1_penalty(asked, discriminator(asked))
    step, squares = 1e-5, 0.0
    with torch.no_grad():
        for index in np.ndindex(*images.shape):
            high, low = images.clone(), images.clone()
            high[index] += step
            low[index] -= step
            squares += ((discriminator(high).sum() - discriminator(low).sum()).item() / (2 * step)) ** 2
    assert penalty.item() == pytest.approx(squares / 2, rel=1e-6)
    penalty.backward()
    assert discriminator[0].weight.grad.any()
    assert discriminator[2].weight.grad.any()


def test_adaptive_weight_against_gradients_by_hand():
    """y = w x with squares for one loss and a sum for the other: both gradients are known."""
    layer = nn.Linear(3, 1, bias=False).double()
    x = torch.randn(5, 3, dtype=torch.float64)
    y = layer(x)
    weight = adaptive_weight(y.square().sum(), 0.5 * y.sum(), layer.weight)
    by_hand = (2 * y.detach().T @ x).norm() / ((0.5 * x.sum(0)).norm() + 1e-4)
    assert weight.item() == pytest.approx(by_hand.item(), rel=1e-5)
    assert not weight.requires_grad
    assert layer.weight.grad is None
    assert adaptive_weight(1e9 * y.square().sum(), y.sum(), layer.weight).item() == 1e4
    y.sum().backward()  # the graph was kept


def test_schedule():
    schedule = AdversarialSchedule(start=2, alone=3, ramp=2)
    assert [schedule.learns(i) for i in range(4)] == [False, False, True, True]
    assert [schedule.factor(i) for i in range(8)] == [0, 0, 0, 0, 0, 0.5, 1, 1]
    assert AdversarialSchedule().factor(0) == 1
    with pytest.raises(ValueError, match='negative'):
        AdversarialSchedule(alone=-1)


@pytest.mark.parametrize('num_layers, field', [(1, 16), (2, 34), (3, 70)])
def test_the_receptive_field_of_a_logit(num_layers, field):
    discriminator = PatchDiscriminator(in_channels=1, base_channels=2, num_layers=num_layers, norm='none')
    image = torch.rand(1, 1, 160, 160).requires_grad_()
    logits_of = discriminator(image)
    row = logits_of.shape[-1] // 2
    logits_of[0, 0, row, row].backward()
    seen = image.grad[0, 0].abs().sum(0).nonzero().flatten()
    assert seen[-1] - seen[0] + 1 == field


@pytest.mark.parametrize('num_layers', [1, 2, 3])
def test_the_smallest_image_gives_one_logit(num_layers):
    discriminator = PatchDiscriminator(in_channels=2, base_channels=2, num_layers=num_layers)
    side = discriminator.smallest_side
    assert discriminator(torch.rand(1, 2, side, side)).shape == (1, 1, 1, 1)
    with pytest.raises(ValueError, match='num_layers'):
        discriminator(torch.rand(1, 2, side, side - 1))
    with pytest.raises(ValueError, match='in_channels=3'):
        discriminator(torch.rand(1, 3, side, side))


@pytest.mark.parametrize('norm', ['group', 'batch', 'none'])
def test_frozen_logits_are_the_same_and_do_not_change_the_discriminator(norm):
    discriminator = PatchDiscriminator(base_channels=4, num_layers=1, norm=norm)
    before = {name: value.clone() for name, value in discriminator.state_dict().items()}
    images = torch.rand(2, 3, 8, 8).requires_grad_()
    frozen = frozen_logits(discriminator, images)
    frozen.sum().backward()
    assert images.grad.any()
    assert all(p.grad is None for p in discriminator.parameters())
    assert all(torch.equal(before[name], value) for name, value in discriminator.state_dict().items())
    torch.testing.assert_close(frozen, discriminator(images))


def test_bad_options_are_refused():
    with pytest.raises(ValueError, match='norm'):
        PatchDiscriminator(norm='layer')
    with pytest.raises(ValueError, match='num_layers'):
        PatchDiscriminator(num_layers=0)
