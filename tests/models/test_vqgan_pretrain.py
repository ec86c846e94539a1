# Copyright (c) addp_mm contributors. Apache-2.0.
"""Training of a tokenizer against a discriminator."""

import copy

import pytest
import torch
from helpers.tiny_vqgan import DISCRIMINATOR, batch_of, build, images, optimizers
from mmengine.model import MMDistributedDataParallel

from addp_mm.models.losses.adversarial_loss import hinge_discriminator_loss
from addp_mm.models.selfsup import TokenizerPretrain

VIT = dict(
    type='addp_mm.PerceptualLoss',
    backbone=dict(
        type='addp_mm.ADDPViT',
        arch='nano',
        img_size=64,
        patch_size=8,
        pre_norm=True,
        out_indices=(1,),
        out_type='raw',
        init_cfg=dict(type='addp_mm.Pretrained', checkpoint='addp_mm://addp_nano-p8.safetensors', prefix='backbone.'),
    ),
)


def gradients(model, loss):
    model.zero_grad()
    loss.backward()
    return {name: None if p.grad is None else p.grad.clone() for name, p in model.named_parameters()}


def test_each_loss_reaches_its_own_component_only():
    model = build(lecam_weight=0.1, r1_weight=1.0).train()
    totals, _ = model.parse_losses(model(images(), mode='loss'))
    for part, loss in totals.items():
        found = gradients(model, loss)
        assert all((grad is not None) == name.startswith(f'{part}.') for name, grad in found.items())
        assert all(grad is None or grad.any() for grad in found.values()), part


def test_one_backward_pass_gives_both_gradients_of_two():
    model = build(lecam_weight=0.1, r1_weight=1.0).train()
    totals, _ = model.parse_losses(model(images(), mode='loss'))
    model.zero_grad()
    totals['tokenizer'].backward(retain_graph=True)
    totals['discriminator'].backward(retain_graph=True)
    apart = [p.grad.clone() for p in model.parameters()]
    model.zero_grad()
    sum(totals.values()).backward()
    for one, two in zip(apart, model.parameters(), strict=True):
        torch.testing.assert_close(one, two.grad)


def test_losses_against_their_definition():
    """The generator's loss and its adaptive weight, by autograd through a copy of both networks."""
    model = build(adversarial_weight=0.7, schedule=dict(ramp=4)).train()
    other = copy.deepcopy(model)
    losses = model(images(), mode='loss')

    reconstructions, _ = other._autoencode(images())
    logits = other.discriminator(reconstructions)
    last = other.tokenizer.decoder.conv_out.weight
    (by_pixels,) = torch.autograd.grad((reconstructions - images()).abs().mean(), last, retain_graph=True)
    (by_judge,) = torch.autograd.grad(-logits.mean(), last, retain_graph=True)
    weight = 0.7 * 0.25 * by_pixels.norm() / (by_judge.norm() + 1e-4)
    torch.testing.assert_close(losses['adversarial_weight'], weight)
    torch.testing.assert_close(losses['loss_generator'], -weight * logits.mean())
    expected = hinge_discriminator_loss(other.discriminator(images()), logits)
    torch.testing.assert_close(losses['discriminator_loss_hinge'], expected)
    assert not losses['loss_mse']


def test_without_adaptive_weight_the_factor_is_the_given_one():
    losses = build(adversarial_weight=0.7, adaptive=False).train()(images(), mode='loss')
    assert losses['adversarial_weight'].item() == pytest.approx(0.7)


def test_the_start_is_delayed_and_rises():
    model = build(
        adaptive=False, adversarial_weight=1.0, schedule=dict(start=1, alone=1, ramp=2), r1_weight=1.0, r1_interval=3
    ).train()
    wrapper = optimizers(model)
    seen = []
    for _ in range(5):
        judge, tokenizer = (copy.deepcopy(part.state_dict()) for part in (model.discriminator, model.tokenizer))
        logged = model.train_step(batch_of(images()), wrapper)
        moved = [
            any(not torch.equal(value, old[name]) for name, value in part.state_dict().items())
            for part, old in ((model.discriminator, judge), (model.tokenizer, tokenizer))
        ]
        assert moved[1]
        seen.append((moved[0], float(logged.get('adversarial_weight', 0)), 'discriminator_loss_r1' in logged))
    assert seen == [(False, 0, False), (True, 0, False), (True, 0.5, False), (True, 1, True), (True, 1, False)]
    # the moments of the discriminator start with it
    steps = [float(state['step']) for state in wrapper['discriminator'].optimizer.state.values()]
    assert set(steps) == {4.0}


def test_evaluation_is_that_of_a_tokenizer_training():
    model = build().eval()
    plain = TokenizerPretrain(model.tokenizer, mse_weight=0.0).eval()
    found, expected = model(images(), mode='loss'), plain(images(), mode='loss')
    assert set(found) == set(expected)
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value)
    assert model(images(), mode='predict')[0].ids.shape == (16,)


def test_lower_precision_learns_the_same_within_rounding():
    full, low = build(lecam_weight=0.1, r1_weight=1.0), build(lecam_weight=0.1, r1_weight=1.0)
    logged = [
        full.train().train_step(batch_of(images()), optimizers(full)),
        low.train().train_step(
            batch_of(images()),
            optimizers(low, type='AmpOptimWrapper', dtype='bfloat16', loss_scale=dict(enabled=False)),
        ),
    ]
    for name, value in logged[0].items():
        if name != 'perplexity' and name != 'codes_in_use' and 'judged' not in name:
            assert logged[1][name].item() == pytest.approx(value.item(), rel=0.1, abs=0.02), name
    assert all(p.dtype == torch.float32 and p.isfinite().all() for p in low.parameters())


def test_gradient_accumulation_sums_up_the_same_gradients():
    whole, halves = build(adaptive=False), build(adaptive=False)
    whole.train().train_step(batch_of(images()), optimizers(whole, optimizer=dict(type='SGD', lr=0.1)))
    wrapper = optimizers(halves, optimizer=dict(type='SGD', lr=0.1), accumulative_counts=2)
    for half in images().chunk(2):
        halves.train().train_step(batch_of(half), wrapper)
    for one, two in zip(whole.parameters(), halves.parameters(), strict=True):
        torch.testing.assert_close(one, two, atol=1e-6, rtol=1e-4)


@pytest.mark.parametrize('channels', [1, 4])
def test_other_numbers_of_channels(channels):
    model = build(dict(in_channels=channels), perceptual=VIT).train()
    model.init_weights()
    assert model.discriminator.in_channels == channels
    losses = model(images(channels=channels), mode='loss')
    sum(model.parse_losses(losses)[0].values()).backward()
    assert losses['loss_perceptual'] > 0
    with pytest.raises(ValueError, match=f'{channels} channels, got 3'):
        model(images(), mode='loss')


def test_the_perceptual_loss_counts():
    model = build(perceptual=VIT, perceptual_weight=2.0).train()
    model.init_weights()
    reconstructions, _ = copy.deepcopy(model)._autoencode(images())
    expected = 2 * model.perceptual(reconstructions, images()).mean()
    losses = model(images(), mode='loss')
    torch.testing.assert_close(losses['loss_perceptual'], expected)
    assert not [key for key in model.state_dict() if 'perceptual' in key]


def test_an_ema_codebook_learns_without_optimizer():
    model = build(codebook='ema', ema_decay=0.5, restart_interval=2, restart_until=9).train()
    assert not model.tokenizer.codes.weight.requires_grad
    wrapper = optimizers(model)
    for step in range(3):
        before = model.tokenizer.codes.weight.clone()
        latents = model.tokenizer.encode_continuous(batch_of(images())['inputs'] / 255).detach()
        ids = model.tokenizer.quantize(latents)
        logged = model.train_step(batch_of(images()), wrapper)
        assert 'loss_codebook' not in logged
        assert not torch.equal(before, model.tokenizer.codes.weight)
        if step == 0:
            chosen = ids[0, 0]
            rows = latents.permute(0, 2, 3, 1).flatten(0, 2)[ids.flatten() == chosen]
            mean = (before[chosen] + rows.sum(0)) / (1 + len(rows))
            torch.testing.assert_close(model.tokenizer.codes.weight[chosen], mean, atol=1e-6, rtol=1e-4)
    assert logged['codes_in_use'] > 0
    assert logged['perplexity'] >= 1


def test_rotation_learns_another_way_than_straight_through():
    found = []
    for gradient in ('straight_through', 'rotation'):
        model = build(code_gradient=gradient, commitment_weight=0.0, adversarial_weight=0.0).train()
        losses = model(images(), mode='loss')
        found.append((losses['loss_l1'].item(), gradients(model, losses['loss_l1'])))
    assert found[0][0] == pytest.approx(found[1][0], rel=1e-5)
    name = 'tokenizer.encoder.conv_out.weight'
    assert not torch.allclose(found[0][1][name], found[1][1][name])
    torch.testing.assert_close(
        found[0][1]['tokenizer.decoder.conv_out.weight'],
        found[1][1]['tokenizer.decoder.conv_out.weight'],
        atol=1e-6,
        rtol=1e-4,
    )


def test_another_stride_and_width():
    model = build(
        dict(stem_stride=2, channel_mults=(1, 1, 2), codebook_size=24, embed_dims=6, attn_levels=(2,)),
        discriminator=dict(DISCRIMINATOR, norm='batch'),
    ).train()
    assert model.tokenizer.stride == 8
    model.train_step(batch_of(images()), optimizers(model))
    assert model.eval()(images(), mode='predict')[0].ids.shape == (4,)


@pytest.fixture
def one_process(tmp_path):
    torch.distributed.init_process_group('gloo', init_method=f'file://{tmp_path}/store', rank=0, world_size=1)
    yield
    torch.distributed.destroy_process_group()


def test_a_process_of_several_goes_through_every_phase(one_process):
    model = build(
        quantize_from=1, schedule=dict(start=2, alone=1, ramp=2), lecam_weight=0.1, r1_weight=1.0, r1_interval=2
    )
    wrapped = MMDistributedDataParallel(module=model).train()
    wrapper = optimizers(model)
    for _ in range(6):
        logged = wrapped.train_step(batch_of(images()), wrapper)
    assert {'loss_generator', 'discriminator_loss_hinge', 'discriminator_loss_lecam'} <= set(logged)


@pytest.mark.parametrize(
    'settings, words',
    [
        (dict(codebook='mean'), 'codebook'),
        (dict(code_gradient='none'), 'code_gradient'),
        (dict(adversarial_weight=-1.0), 'adversarial_weight'),
        (dict(r1_interval=0), 'r1_interval'),
        (dict(discriminator=dict(DISCRIMINATOR, in_channels=4)), 'in_channels'),
        (dict(schedule=dict(start=-1)), 'start'),
    ],
)
def test_bad_options_are_refused(settings, words):
    with pytest.raises(ValueError, match=words):
        build(**settings)
