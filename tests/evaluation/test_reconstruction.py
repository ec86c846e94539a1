# Copyright (c) addp_mm contributors. Apache-2.0.
import math

import numpy as np
import pytest
import torch

from addp_mm.evaluation import CodebookUsage, PeakSignalNoiseRatio, StructuralSimilarity, structural_similarity


def evaluate(metric, samples):
    metric.process({}, samples)
    return metric.evaluate(len(samples))


def noisy_pairs(channels, height=13, width=17, count=3):
    generator = torch.Generator().manual_seed(channels)
    images = torch.rand(count, channels, height, width, generator=generator)
    return images, (images + 0.2 * torch.randn(images.shape, generator=generator)).clamp(0, 1)


def ssim_by_hand(x, y):
    """Window by window, with weighted moments instead of convolutions; x and y (H, W)."""
    grid = np.arange(11) - 5
    window = np.exp(-(grid[:, None] ** 2 + grid[None] ** 2) / (2 * 1.5**2))
    window /= window.sum()
    values = []
    for i in range(x.shape[0] - 10):
        for j in range(x.shape[1] - 10):
            a, b = x[i : i + 11, j : j + 11], y[i : i + 11, j : j + 11]
            mean_a, mean_b = (window * a).sum(), (window * b).sum()
            var_a, var_b = (window * (a - mean_a) ** 2).sum(), (window * (b - mean_b) ** 2).sum()
            covariance = (window * (a - mean_a) * (b - mean_b)).sum()
            values.append(
                (2 * mean_a * mean_b + 1e-4)
                * (2 * covariance + 9e-4)
                / ((mean_a**2 + mean_b**2 + 1e-4) * (var_a + var_b + 9e-4))
            )
    return np.mean(values)


def test_psnr_of_a_known_error():
    image = torch.full((3, 4, 4), 0.5)
    samples = [dict(image=image, reconstruction=image + 0.1), dict(image=image, reconstruction=image - 0.01)]
    assert math.isclose(evaluate(PeakSignalNoiseRatio(), samples)['reconstruction/psnr'], (20 + 40) / 2, rel_tol=1e-5)


def test_psnr_of_equal_images_is_finite():
    image = torch.rand(3, 2, 2)
    assert evaluate(PeakSignalNoiseRatio(), [dict(image=image, reconstruction=image)])['reconstruction/psnr'] == 100


def test_images_of_several_sizes_have_the_same_weight():
    samples = [
        dict(image=torch.zeros(1, *size), reconstruction=torch.full((1, *size), 10**-power))
        for size, power in (((2, 2), 1), ((9, 4), 2), ((2, 2), 3))
    ]
    assert evaluate(PeakSignalNoiseRatio(), samples)['reconstruction/psnr'] == pytest.approx(40)


def test_a_prediction_without_a_reconstruction_is_named():
    with pytest.raises(ValueError, match="has no 'reconstruction'; it has ids, image"):
        evaluate(PeakSignalNoiseRatio(), [dict(image=torch.rand(3, 2, 2), ids=0)])


@pytest.mark.parametrize('channels', [1, 3, 16])
def test_ssim_is_that_of_the_definition(channels):
    images, others = noisy_pairs(channels, count=2)
    by_hand = [
        np.mean([ssim_by_hand(*pair) for pair in zip(x, y, strict=True)])
        for x, y in zip(images.double().numpy(), others.double().numpy(), strict=True)
    ]
    np.testing.assert_allclose(structural_similarity(images, others), by_hand, rtol=1e-9)
    samples = [dict(image=x, reconstruction=y) for x, y in zip(images, others, strict=True)]
    found = evaluate(StructuralSimilarity(), samples)
    assert found == {'reconstruction/ssim': pytest.approx(np.mean(by_hand))}
    assert 0.1 < np.mean(by_hand) < 0.95


def test_ssim_is_that_of_scikit_image():
    metrics = pytest.importorskip('skimage.metrics')
    for x, y in zip(*noisy_pairs(3, 40, 33), strict=True):
        theirs = metrics.structural_similarity(
            x.double().numpy(),
            y.double().numpy(),
            data_range=1,
            channel_axis=0,
            gaussian_weights=True,
            sigma=1.5,
            use_sample_covariance=False,
        )
        assert structural_similarity(x[None], y[None]).item() == pytest.approx(theirs, rel=1e-9)


def test_ssim_of_equal_images_is_one_and_small_ones_are_refused():
    image = torch.rand(1, 2, 11, 11)
    assert structural_similarity(image, image).item() == pytest.approx(1)
    with pytest.raises(ValueError, match='at least 11 x 11 pixels'):
        structural_similarity(image[..., 1:], image[..., 1:])


def test_codebook_usage_and_perplexity():
    result = evaluate(CodebookUsage(8), [dict(ids=torch.tensor([0, 0, 1, 1])), dict(ids=torch.tensor([5, 5, 6, 6]))])
    assert result['codebook/usage'] == 50
    assert math.isclose(result['codebook/perplexity'], 4, rel_tol=1e-9)


def test_ids_beyond_the_codebook_are_refused():
    with pytest.raises(ValueError, match='ids are in .0, 8., but CodebookUsage has codebook_size=8'):
        evaluate(CodebookUsage(8), [dict(ids=torch.tensor([0, 8]))])
