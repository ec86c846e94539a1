# Copyright (c) addp_mm contributors. Apache-2.0.
"""Training of the tokenizer."""

import pytest
import torch
from mmengine.model import MMDistributedDataParallel

from addp_mm.models.selfsup import TokenizerPretrain
from addp_mm.models.tokenizers import VQTokenizer


def tiny_tokenizer():
    torch.manual_seed(0)
    return VQTokenizer(
        stem_stride=4,
        base_channels=32,
        channel_mults=(1,),
        num_res_blocks=1,
        num_mid_blocks=1,
        codebook_size=64,
        embed_dims=4,
        normalize_codes=True,
    )


def images(count=4):
    return torch.rand(count, 3, 16, 16, generator=torch.Generator().manual_seed(1))


def test_it_loads_a_tokenizer_alone():
    source, model = tiny_tokenizer(), TokenizerPretrain(tiny_tokenizer())
    with torch.no_grad():
        source.codes.weight.add_(1)
    result = model.load_state_dict(source.state_dict(), strict=False)
    assert not result.unexpected_keys
    assert set(result.missing_keys) == {'iteration', 'code_counts'}
    assert torch.equal(model.tokenizer.codes.weight, source.codes.weight)


def test_tokenizer_loss_against_its_definition():
    model = TokenizerPretrain(tiny_tokenizer(), l1_weight=1.5, mse_weight=3.0, commitment_weight=0.5).eval()
    losses = model(images(), mode='loss')
    with torch.no_grad():
        tokenizer = model.tokenizer
        latents = tokenizer.encode_continuous(images())
        ids, codes = tokenizer.encode(images())
        error = (tokenizer.decode(codes) - images()).numpy()
    distance = ((latents - codes) ** 2).mean().item()
    assert abs(losses['loss_l1'].item() - 1.5 * abs(error).mean()) < 1e-5
    assert abs(losses['loss_mse'].item() - 3 * (error**2).mean()) < 1e-5
    assert abs(losses['loss_codebook'].item() - distance) < 1e-6
    assert abs(losses['loss_commitment'].item() - 0.5 * distance) < 1e-6


def test_every_parameter_of_the_tokenizer_learns():
    model = TokenizerPretrain(tiny_tokenizer())
    sum(value for key, value in model(images(), mode='loss').items() if 'loss' in key).backward()
    assert [name for name, p in model.named_parameters() if p.grad is None or not p.grad.any()] == []


def test_the_gradient_passes_straight_through_the_codes():
    """The encoder's gradient of the reconstruction is the one at the codes."""
    model = TokenizerPretrain(tiny_tokenizer(), mse_weight=0.0, commitment_weight=0.0)
    tokenizer = model.tokenizer
    seen = []
    tokenizer.encoder.conv_out.register_full_backward_hook(lambda module, _, grad: seen.append(grad[0]))
    model(images(), mode='loss')['loss_l1'].backward()

    raw = tokenizer.encoder(images()).detach().requires_grad_()
    normalised = torch.nn.functional.normalize(raw, dim=1)
    codes = tokenizer.encode(images())[1].detach().requires_grad_()
    (grad_codes,) = torch.autograd.grad((tokenizer.decode(codes) - images()).abs().mean(), codes)
    (expected,) = torch.autograd.grad(normalised, raw, grad_codes)
    torch.testing.assert_close(seen[0], expected, atol=1e-7, rtol=1e-4)


def test_unused_codes_restart_from_latents_until_the_last_restart():
    model = TokenizerPretrain(tiny_tokenizer(), restart_interval=2, restart_until=5).train()
    weights = model.tokenizer.codes.weight
    for iteration in range(6):
        before, unused = weights.detach().clone(), model.code_counts == 0
        latents = model.tokenizer.encode_continuous(images()).detach()
        model(images(), mode='loss')
        changed = (weights != before).any(1)
        if iteration in (2, 4):
            assert unused.any()
            assert torch.equal(changed, unused)
            candidates = latents.permute(0, 2, 3, 1).reshape(-1, 4)
            distances = (weights[changed].detach()[:, None] - candidates).norm(dim=2)
            assert (distances.min(1).values < 1e-6).all()
        else:
            assert not changed.any()


def test_latents_pass_unquantised_until_codes_are_drawn_from_them():
    model = TokenizerPretrain(tiny_tokenizer(), mse_weight=0.0, quantize_from=1).train()
    latents = model.tokenizer.encode_continuous(images())
    first = model(images(), mode='loss')
    torch.testing.assert_close(first['loss_l1'], (model.tokenizer.decode(latents) - images()).abs().mean())
    assert 'loss_codebook' not in first
    assert not model.code_counts.any()

    assert 'loss_codebook' in model(images(), mode='loss')
    candidates = latents.detach().permute(0, 2, 3, 1).reshape(-1, 4)
    distances = (model.tokenizer.codes.weight.detach()[:, None] - candidates).norm(dim=2)
    assert (distances.min(1).values < 1e-6).all()


@pytest.fixture
def one_process(tmp_path):
    torch.distributed.init_process_group('gloo', init_method=f'file://{tmp_path}/store', rank=0, world_size=1)
    yield
    torch.distributed.destroy_process_group()


def test_distributed_training_passes_from_unquantised_to_quantised(one_process):
    """DistributedDataParallel refuses the second iteration if a parameter got no gradient."""
    model = TokenizerPretrain(tiny_tokenizer(), quantize_from=2)
    wrapped = MMDistributedDataParallel(module=model)
    for _ in range(3):
        losses = wrapped(images(), mode='loss')
        sum(value for key, value in losses.items() if 'loss' in key).backward()
    assert model.tokenizer.codes.weight.grad.any()


def test_codes_are_not_counted_in_evaluation():
    model = TokenizerPretrain(tiny_tokenizer(), restart_interval=1, restart_until=9).eval()
    model(images(), mode='loss')
    assert model.iteration == 0
    assert not model.code_counts.any()


def test_predictions_of_the_tokenizer():
    model = TokenizerPretrain(tiny_tokenizer()).eval()
    samples = model(images(3), mode='predict')
    assert len(samples) == 3
    torch.testing.assert_close(samples[1].reconstruction, model.reconstruct(images(3))[1], atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(samples[1].image, images(3)[1])
    assert samples[0].ids.shape == (16,)
