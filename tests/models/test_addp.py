# Copyright (c) addp_mm contributors. Apache-2.0.
import copy

import pytest
import torch
from helpers import tiny_components
from helpers.tiny_components import build, images, noise
from mmengine.model import MMDistributedDataParallel
from mmengine.runner.checkpoint import load_state_dict as mmengine_load
from torch import nn

from addp_mm.diffusion import NoiseDraw, NoiseSchedule
from addp_mm.generation import AlternatingSampler, SamplingSchedule
from addp_mm.models.layers import ImageSizeError
from addp_mm.models.selfsup import ADDP, is_loaded, mark_loaded
from addp_mm.models.selfsup.addp import IMAGENET_MEAN, IMAGENET_STD
from addp_mm.randomness import generator_from_process


@pytest.fixture
def model():
    return build().train()


def test_loss_is_fixed_by_images_level_and_generator(model):
    first = model.loss(images(), noise=noise())
    again = model.loss([images()], noise=noise())  # multi-view pipelines pass lists
    assert torch.equal(first['loss'], again['loss'])
    assert not torch.equal(first['loss'], model.loss(images(), noise=noise(seed=7))['loss'])
    assert not torch.equal(first['loss'], model.loss(images(), noise=noise(step=35))['loss'])
    assert first['mask_ratio'].item() == pytest.approx(NoiseSchedule().ratios[20].item())
    assert first['next_mask_ratio'].item() == pytest.approx(NoiseSchedule().ratios[40].item())


def test_every_trained_parameter_gets_a_gradient_and_no_frozen_one(model):
    model.loss(images(), noise=noise())['loss'].backward()
    for name, parameter in model.named_parameters():
        if name.startswith(('tokenizer.', 'predictor.')):
            assert not parameter.requires_grad, name
            assert parameter.grad is None, name
        else:
            assert parameter.grad is not None, name
            assert parameter.grad.abs().sum() > 0, name


@pytest.mark.slow
@torch.no_grad()
def test_every_frozen_parameter_matters(model):
    def losses():
        for seed, step in enumerate((20, 0, 50)):
            yield model.loss(images(2), noise=noise(step, step + 5, seed))['loss'].item()

    before = list(losses())
    for name, part in model.frozen_components.items():
        for key, parameter in part.named_parameters():
            kept = parameter.clone()
            parameter += 3 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(0))
            # stops at the first level whose loss changed
            assert any(now != then for now, then in zip(losses(), before, strict=True)), f'{name}.{key} has no effect'
            parameter.copy_(kept)
    assert list(losses()) == before


def test_trained_parameters_stay_connected_when_everything_is_masked(model):
    level = NoiseSchedule().level(65, 65)
    assert 16 * level.ratio > 15
    model.loss(images(), noise=type(noise())(level, torch.Generator().manual_seed(0)))['loss'].backward()
    assert all(p.grad is not None for p in model.parameters() if p.requires_grad)


def test_frozen_components_stay_in_eval_unless_dropout_is_set(model):
    assert model.backbone.training
    assert not model.tokenizer.training
    assert not model.predictor.training
    noisy = build(predictor=dict(train_dropout=True)).train()
    assert noisy.predictor.training
    assert not noisy.tokenizer.training
    assert not noisy.eval().predictor.training
    torch.manual_seed(0)
    losses = {noisy.train().loss(images(), noise=noise())['loss'].item() for _ in range(3)}
    assert len(losses) == 3


def test_frozen_components_are_saved_and_moved_with_the_model(model):
    keys = model.state_dict()
    assert 'tokenizer.codes.weight' in keys
    assert 'predictor.word_embed.weight' in keys
    assert not any('pixel_' in key for key in keys)
    assert {p.dtype for p in copy.deepcopy(model).double().predictor.parameters()} == {torch.float64}


@pytest.mark.parametrize('load', [nn.Module.load_state_dict, mmengine_load], ids=['torch', 'mmengine'])
def test_components_are_loaded_only_after_a_complete_state_dict(load):
    model, weights = build(), build().state_dict()
    assert model.unloaded_components() == ['tokenizer', 'predictor']
    load(model, {key: value for key, value in weights.items() if key.startswith('backbone')}, strict=False)
    assert model.unloaded_components() == ['tokenizer', 'predictor']
    load(model, {key: value for key, value in weights.items() if not key.startswith('predictor')}, strict=False)
    assert model.unloaded_components() == ['predictor']
    load(model, weights)
    assert model.unloaded_components() == []
    assert copy.deepcopy(model).unloaded_components() == []


def test_a_component_is_loaded_by_its_own_weights_or_by_declaration():
    model = build()
    model.tokenizer.load_state_dict(build().tokenizer.state_dict())
    mark_loaded(model.predictor)
    assert is_loaded(model.tokenizer)
    assert model.unloaded_components() == []


@pytest.mark.parametrize('load', [nn.Module.load_state_dict, mmengine_load], ids=['torch', 'mmengine'])
@pytest.mark.parametrize('spoil', ['missing', 'unexpected', 'shape'])
def test_frozen_components_load_strictly_also_with_strict_false(load, spoil):
    model, weights = build(), build().state_dict()
    if spoil == 'missing':
        del weights['predictor.norm.weight']
    elif spoil == 'unexpected':
        weights['predictor.norm.gain'] = torch.ones(8)
    else:
        weights['predictor.norm.weight'] = torch.ones(9)
    with pytest.raises(RuntimeError, match=r'frozen predictor.*norm\.'):
        load(model, weights, strict=False)
    assert 'predictor' in model.unloaded_components()


def test_a_loader_does_not_report_loaded_frozen_components_as_missing():
    model, weights = build(), build().state_dict()
    trained = {key: value for key, value in weights.items() if not key.startswith(('tokenizer.', 'predictor.'))}
    model.tokenizer.load_state_dict(build().tokenizer.state_dict())
    missing = model.load_state_dict(trained, strict=False).missing_keys
    assert missing
    assert all(key.startswith('predictor.') for key in missing)
    model.predictor.load_state_dict(build().predictor.state_dict())
    model.load_state_dict(trained)


def test_noise_comes_from_the_generator_of_the_process(model):
    def losses(seed):
        torch.manual_seed(seed)
        return model(images(), None, mode='loss')

    assert torch.equal(losses(1)['loss'], losses(1)['loss'])
    assert len({losses(seed)['loss'].item() for seed in range(4)}) == 4
    assert len({losses(seed)['mask_ratio'].item() for seed in range(4)}) > 1
    torch.manual_seed(1)
    drawn = NoiseDraw.sample(model.schedule, generator_from_process())
    assert torch.equal(model.loss(images(), noise=drawn)['loss'], losses(1)['loss'])


def test_backbone_sees_normalised_images(model):
    batch = images()
    expected = model.backbone(
        (batch - torch.tensor(IMAGENET_MEAN).view(1, 3, 1, 1)) / torch.tensor(IMAGENET_STD).view(1, 3, 1, 1)
    )
    torch.testing.assert_close(model(batch, mode='tensor')[-1], expected[-1])


def test_training_on_stored_ids_equals_training_on_their_images(model):
    """Bit for bit, forward and backward, and nothing is encoded."""
    ids, _ = model.tokenize(images())
    expected = model.loss(images(), noise=noise())
    expected['loss'].backward()
    gradients = {name: p.grad for name, p in model.named_parameters() if p.requires_grad}
    encoded = []
    model.tokenizer.encoder.register_forward_hook(lambda *_: encoded.append(1))
    for stored in (ids, ids.to(torch.int16), [*ids]):  # pseudo_collate passes lists
        model.zero_grad()
        losses = model.loss(stored, noise=noise())
        assert all(torch.equal(losses[name], value) for name, value in expected.items())
        losses['loss'].backward()
        assert all(torch.equal(p.grad, gradients[n]) for n, p in model.named_parameters() if p.requires_grad)
    assert not encoded
    with pytest.raises(ValueError, match='from 16 to 16 do not fit a predictor of 16 tokens and 16 codes'):
        model.loss(torch.full((2, 16), 16), noise=noise())
    with pytest.raises(ValueError, match='rows of 9 ids'):
        model.loss(ids[:, :9], noise=noise())


@pytest.mark.parametrize('dtype', [torch.bfloat16, torch.float16])
def test_under_autocast_ids_stay_exact_and_only_bfloat16_rounds_pixels(model, dtype):
    ids, latents = model.tokenize(images())
    pixels = model.decode(latents)
    exact = model.loss(images(), noise=noise())['loss']
    with torch.autocast('cpu', dtype):
        ids_cast, latents_cast = model.tokenize(images())
        assert torch.equal(ids, ids_cast)
        assert torch.equal(latents, latents_cast)
        decoded = model.decode(latents_cast)
        loss = model.loss(images(), noise=noise())['loss']
    assert decoded.dtype == torch.float32
    if dtype == torch.bfloat16:  # it has 8 bits, and errors of a few layers add up
        torch.testing.assert_close(decoded, pixels, rtol=0, atol=0.05 * float(pixels.abs().max()))
        assert not torch.equal(decoded, pixels)
    else:
        assert torch.equal(decoded, pixels)
    loss.backward()
    assert loss.dtype == torch.float32
    assert loss.item() == pytest.approx(exact.item(), rel=2e-2)


def test_distributed_training_does_not_change_frozen_components(model, tmp_path):
    torch.distributed.init_process_group('gloo', init_method=f'file://{tmp_path}/store', rank=0, world_size=1)
    try:
        wrapped = MMDistributedDataParallel(module=model)
        frozen = {f'{name}.{key}' for name, part in model.frozen_components.items() for key in part.state_dict()}
        assert wrapped.parameters_to_ignore == frozen
        assert {name for name, p in model.named_parameters() if not p.requires_grad} <= frozen
        wrapped(images(), None, mode='loss')['loss'].backward()
        assert all(p.grad is not None for p in model.parameters() if p.requires_grad)
    finally:
        torch.distributed.destroy_process_group()


@pytest.mark.skipif(not torch.cuda.is_available(), reason='needs a GPU')
@pytest.mark.parametrize('dtype', [None, torch.bfloat16, torch.float16])
def test_a_generator_on_the_cpu_serves_a_model_on_the_gpu(model, dtype):
    on_cpu = model.loss(images(), noise=noise())['loss'].item()
    model.cuda()
    with torch.autocast('cuda', dtype, enabled=dtype is not None):
        loss = model.loss(images().cuda(), noise=noise())['loss']
    loss.backward()
    assert loss.item() == pytest.approx(on_cpu, rel=1e-4 if dtype is None else 2e-2)


def test_predicted_tokens_and_expected_latents(model):
    model.eval()
    ids, _ = model.tokenize(images())
    mask = torch.zeros(3, 16, dtype=torch.bool)
    mask[0, :4], mask[1, 3:9], mask[2, 10:14] = True, True, True
    logits = model.predict_tokens(images(), ids, mask)
    assert logits.shape == (3, 16, 16)
    for row in range(3):
        alone = model.predict_tokens(images()[row : row + 1], ids[row : row + 1], mask[row : row + 1])
        torch.testing.assert_close(logits[row : row + 1], alone)
    latents = model.expected_latents(ids, mask)
    mean = model.predictor(ids, mask)[1, 5] @ model.tokenizer.codebook
    assert latents.shape == (3, 4, 4, 4)
    torch.testing.assert_close(latents[1, :, 1, 1], mean)


@pytest.mark.parametrize(
    'changes, message',
    [
        (dict(predictor=dict(token_space=dict(tiny_components.SPACE, fake_class_slot=0))), 'token space'),
        (dict(tokenizer=dict(codebook_size=8)), '8 codes'),
        (dict(predictor=dict(num_tokens=9)), 'predictor has 9 tokens'),
        (dict(backbone=dict(out_type='cls_token')), "out_type='raw'"),
        (dict(latent_size=(4, 5)), 'do not form'),
    ],
)
def test_components_that_do_not_fit_are_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        build(**changes)


def draw_masks():
    ids = torch.arange(48).view(3, 16) % 16
    mask = torch.zeros(3, 16, dtype=torch.bool)
    mask[:, 3:10] = True
    mask_next = mask.clone()
    mask_next[:, 10:12] = True
    return ids, mask, mask_next


@pytest.mark.parametrize(
    'options, calls',
    [
        (dict(), 2),
        (dict(hard_target=True), 1),
        (dict(unreliable_tokens=False), 1),
        (dict(hard_target=True, unreliable_tokens=False), 0),
    ],
)
def test_ablations_of_targets_and_unreliable_tokens(options, calls):
    torch.manual_seed(0)
    model = build(**options).eval()
    ids, mask, mask_next = draw_masks()
    latents = model.tokenizer.lookup(ids, 4, 4)
    codes = model.tokenizer.codebook
    sequences, outputs = [], []
    model.predictor.register_forward_hook(lambda _, given, __: sequences.append(len(given[0])))
    model.predictor.head.register_forward_hook(lambda _, __, out: outputs.append(out.numel()))
    images, target = model.add_noise(ids, latents, mask, mask_next)
    assert sum(sequences) == calls * 3
    assert sum(outputs) == calls * mask.sum() * 16  # masked positions, and no words but the codes

    if options.get('hard_target'):
        assert torch.equal(target.argmax(-1), ids[mask])
        assert torch.equal(target.sum(-1), torch.ones(int(mask.sum())))
    else:
        torch.testing.assert_close(target, model.predictor(ids, mask)[mask])
    if options.get('unreliable_tokens', True):
        expected_codes = model.predictor(ids, mask_next) @ codes
    else:
        expected_codes = codes.mean(0).expand(3, 16, -1)
    expected = torch.where(mask.unsqueeze(-1), expected_codes, codes[ids])
    torch.testing.assert_close(images, model.decode(expected.transpose(1, 2).unflatten(2, (4, 4))))


def test_ablations_train():
    for options in (dict(hard_target=True), dict(unreliable_tokens=False)):
        model = build(**options).train()
        losses = model.loss(images(), noise=noise())
        losses['loss'].backward()
        assert torch.isfinite(losses['loss'])
        assert all(p.grad is not None for p in model.parameters() if p.requires_grad)


def test_a_map_need_not_be_square():
    model = build(latent_size=(2, 8), schedule=dict(max_stride=2)).eval()
    ids = torch.zeros(1, 16, dtype=torch.long)
    assert isinstance(model, ADDP)
    assert model.schedule.max_stride == 2
    assert model.expected_latents(ids, ids.bool()).shape == (1, 4, 2, 8)


def test_as_many_tokens_in_another_map_are_refused(model):
    flat = torch.rand(2, 3, 8, 32)
    with pytest.raises(ImageSizeError, match='images of 8x32 px have 2x8 tokens.*map of 4x4.*images of 16x16 px'):
        model.loss(flat, noise=noise())
    with pytest.raises(ImageSizeError, match='map of 4x4'):
        AlternatingSampler(model.eval(), model.latent_size, SamplingSchedule(2)).inpaint(
            flat, torch.ones(2, 16, dtype=torch.bool), torch.Generator()
        )


@pytest.mark.parametrize('channels, mean', [(1, None), (5, [0.1, 0.2, 0.3, 0.4, 0.5]), (2, [0.5])])
def test_images_of_other_channels_than_three(channels, mean):
    model = build(tokenizer=dict(in_channels=channels), backbone=dict(in_channels=channels), pixel_mean=mean).train()
    batch = torch.rand(3, channels, 16, 16)
    model.loss(batch, noise=noise())['loss'].backward()
    assert model.backbone.patch_embed.projection.weight.grad.abs().sum() > 0
    expected = [0.5] * channels if mean is None or len(mean) == 1 else mean
    assert model.pixel_mean.flatten().tolist() == pytest.approx(expected)


def test_rgb_keeps_the_normalisation_of_imagenet(model):
    assert model.pixel_mean.flatten().tolist() == pytest.approx(IMAGENET_MEAN)
    assert model.pixel_std.flatten().tolist() == pytest.approx(IMAGENET_STD)


def test_channels_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match=r'backbone.in_channels=5'):
        build(tokenizer=dict(in_channels=5))
    with pytest.raises(ValueError, match='pixel_std must have one number'):
        build(pixel_std=[0.2, 0.2])
