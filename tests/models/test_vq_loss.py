# Copyright (c) addp_mm contributors. Apache-2.0.
"""Gradients through the codes, and codes as moving means."""

import numpy as np
import pytest
import torch

from addp_mm.models.losses.vq_loss import EMACodes, perplexity, rotation_trick, straight_through, vq_losses


def pair(shape=(2, 5, 3, 2), seed=0):
    generator = torch.Generator().manual_seed(seed)
    latents, codes = (torch.randn(shape, generator=generator, dtype=torch.float64) for _ in range(2))
    return latents.requires_grad_(), codes.requires_grad_()


def test_the_rotation_trick_gives_the_codes_and_the_gradient_of_a_householder_product():
    """Independently: rotation from e to q as two reflections, as matrices, for each position."""
    latents, codes = pair()
    weight = torch.randn(latents.shape, generator=torch.Generator().manual_seed(5), dtype=torch.float64)
    output = rotation_trick(latents, codes)
    torch.testing.assert_close(output, codes)
    (output * weight).sum().backward()
    assert codes.grad is None
    for b, y, x in np.ndindex(2, 3, 2):
        e, q, g = (t[b, :, y, x].detach().numpy() for t in (latents, codes, weight))
        unit_e, unit_q = e / np.linalg.norm(e), q / np.linalg.norm(q)
        # reflect at the plane between e and q, then at that of q: the product is a rotation in the
        # plane of both
        half = (unit_e + unit_q) / np.linalg.norm(unit_e + unit_q)
        matrix = (np.eye(5) - 2 * np.outer(unit_q, unit_q)) @ (np.eye(5) - 2 * np.outer(half, half))
        matrix *= np.linalg.norm(q) / np.linalg.norm(e)
        np.testing.assert_allclose(matrix @ e, q, atol=1e-12)
        np.testing.assert_allclose(latents.grad[b, :, y, x].numpy(), matrix.T @ g, atol=1e-12)


def test_the_rotation_trick_keeps_the_angle_between_gradient_and_vector():
    latents, codes = pair(seed=3)
    weight = torch.randn(latents.shape, dtype=torch.float64)
    (rotation_trick(latents, codes) * weight).sum().backward()
    cosine = torch.nn.functional.cosine_similarity
    torch.testing.assert_close(cosine(latents.grad, latents.detach(), dim=1), cosine(weight, codes.detach(), dim=1))


@pytest.mark.parametrize('codes_of', [lambda x: x, lambda x: -x, torch.zeros_like], ids=['same', 'opposite', 'zero'])
def test_the_rotation_trick_in_special_cases(codes_of):
    latents = torch.randn(2, 4, 1, 1).requires_grad_()
    output = rotation_trick(latents, codes_of(latents.detach()))
    output.sum().backward()
    assert output.isfinite().all()
    assert latents.grad.isfinite().all()


def test_straight_through_copies_the_gradient():
    latents, codes = pair()
    output = straight_through(latents, codes)
    torch.testing.assert_close(output, codes)
    output.square().sum().backward()
    torch.testing.assert_close(latents.grad, 2 * codes.detach())
    assert codes.grad is None


def test_losses_of_codebook_and_encoder_reach_one_side_each():
    latents, codes = pair()
    losses = vq_losses(latents, codes, 0.25)
    difference = (latents - codes).detach()
    losses['loss_codebook'].backward()
    torch.testing.assert_close(codes.grad, -2 * difference / difference.numel())
    assert latents.grad is None
    losses['loss_commitment'].backward()
    torch.testing.assert_close(latents.grad, 0.5 * difference / difference.numel())
    assert set(vq_losses(latents, codes, 0.25, learn_codes=False)) == {'loss_commitment'}


def test_ema_codes_against_their_closed_form():
    generator = torch.Generator().manual_seed(0)
    start = torch.randn(3, 2, generator=generator)
    codes, ema, decay = start.clone(), EMACodes(start, 0.8), 0.8
    counts, sums = [], []
    for _ in range(5):
        ids = torch.randint(2, (2, 6), generator=generator)  # the third code is never used
        latents = torch.randn(2, 2, 2, 3, generator=generator)
        ema.update(codes, ids, latents)
        rows, flat = latents.permute(0, 2, 3, 1).reshape(-1, 2).numpy(), ids.flatten().numpy()
        counts.append([(flat == k).sum() for k in range(3)])
        sums.append([rows[flat == k].sum(0) for k in range(3)])
    powers = 0.2 * decay ** np.arange(4, -1, -1)
    count = decay**5 + powers @ np.array(counts)
    total = decay**5 * start.numpy() + np.einsum('t,tkc->kc', powers, np.array(sums))
    np.testing.assert_allclose(codes.numpy()[:2], (total / count[:, None])[:2], rtol=1e-5)
    assert torch.equal(codes[2], start[2])


def test_a_restarted_code_forgets():
    codes = torch.randn(3, 2)
    ema = EMACodes(codes, 0.5)
    ema.update(codes, torch.tensor([[0, 0, 1, 2]]), torch.randn(1, 2, 2, 2))
    codes[1] = 7.0
    which = torch.tensor([False, True, False])
    kept = ema.sums[0].clone()
    ema.restart(codes, which)
    latents = torch.full((1, 2, 1, 1), 3.0)
    ema.update(codes, torch.tensor([[1]]), latents)
    torch.testing.assert_close(codes[1], torch.full((2,), 5.0))  # (0.5 * 7 + 0.5 * 3) / (0.5 + 0.5)
    torch.testing.assert_close(ema.sums[0], kept / 2)


def test_perplexity():
    assert perplexity(torch.tensor([5, 5, 5, 5, 0])).item() == pytest.approx(4)
    assert perplexity(torch.tensor([9, 0, 0])).item() == pytest.approx(1)
    shares = np.array([0.1, 0.3, 0.6])
    assert perplexity(torch.tensor([1, 3, 6])).item() == pytest.approx(np.exp(-(shares * np.log(shares)).sum()))


def test_a_decay_outside_of_its_range_is_refused():
    with pytest.raises(ValueError, match='decay'):
        EMACodes(torch.zeros(2, 2), 1.0)
