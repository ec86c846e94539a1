# Copyright (c) addp_mm contributors. Apache-2.0.
import math

import torch

from addp_mm.evaluation import CodebookUsage, PeakSignalNoiseRatio


def evaluate(metric, samples):
    metric.process({}, samples)
    return metric.evaluate(len(samples))


def test_psnr_of_a_known_error():
    image = torch.full((3, 4, 4), 0.5)
    samples = [dict(image=image, reconstruction=image + 0.1), dict(image=image, reconstruction=image - 0.01)]
    assert math.isclose(evaluate(PeakSignalNoiseRatio(), samples)['reconstruction/psnr'], (20 + 40) / 2, rel_tol=1e-5)


def test_psnr_of_equal_images_is_finite():
    image = torch.rand(3, 2, 2)
    assert evaluate(PeakSignalNoiseRatio(), [dict(image=image, reconstruction=image)])['reconstruction/psnr'] == 100


def test_codebook_usage_and_perplexity():
    result = evaluate(CodebookUsage(8), [dict(ids=torch.tensor([0, 0, 1, 1])), dict(ids=torch.tensor([5, 5, 6, 6]))])
    assert result['codebook/usage'] == 50
    assert math.isclose(result['codebook/perplexity'], 4, rel_tol=1e-9)
