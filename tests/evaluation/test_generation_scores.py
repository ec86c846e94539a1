# Copyright (c) addp_mm contributors. Apache-2.0.
import numpy as np
import pytest
import torch

from addp_mm.errors import UserError
from addp_mm.evaluation import StatisticsError
from addp_mm.evaluation.generation_scores import inception_score, kernel_distance, precision_recall

pytest.importorskip('torch_fidelity')


def features(count, seed=0, shift=0.0, dims=5):
    return torch.randn(count, dims, generator=torch.Generator().manual_seed(seed)) + shift


def unbiased_mmd(a, b):
    """Squared maximum mean discrepancy with the kernel (x·y / D + 1)³, pair by pair."""
    kernel = lambda x, y: (float(x @ y) / len(x) + 1) ** 3  # noqa: E731
    a, b = a.double().numpy(), b.double().numpy()

    def mean(pairs):
        values = [kernel(x, y) for x, y in pairs]
        return sum(values) / len(values)

    within = [mean((x, y) for i, x in enumerate(rows) for j, y in enumerate(rows) if i != j) for rows in (a, b)]
    return sum(within) - 2 * mean((x, y) for x in a for y in b)


def test_kid_is_the_unbiased_estimate(monkeypatch):
    said = []
    monkeypatch.setattr('addp_mm.evaluation.generation_scores.print_log', lambda words, **_: said.append(words))
    a, b = features(20), features(20, seed=1, shift=0.7)
    found = kernel_distance(a, b)
    assert found['kid'] == pytest.approx(unbiased_mmd(a, b), rel=1e-4)
    assert found['kid_std'] == pytest.approx(0, abs=1e-6)
    assert said == [
        'KID: subsets of 20 images, because one set has no more than these; 1000 were asked for, and papers use 1000'
    ]
    # the mean over 100 subsets, in the order in which torch-fidelity chooses them
    a, b = features(30), features(25, seed=1, shift=0.7)
    rng = np.random.RandomState(2020)
    chosen = [[rows[rng.choice(len(rows), 8, replace=False)] for rows in (a, b)] for _ in range(100)]
    values = [unbiased_mmd(*pair) for pair in chosen]
    assert kernel_distance(a, b, subset_size=8) == dict(
        kid=pytest.approx(np.mean(values), rel=1e-4), kid_std=pytest.approx(np.std(values), rel=1e-4)
    )
    # equal distributions: 0 up to the spread of the estimate, unlike a biased estimate
    same = kernel_distance(features(400), features(400, seed=2), subset_size=50)
    assert abs(same['kid']) < 0.1 * same['kid_std'] + 0.05
    with pytest.raises(StatisticsError, match='KID needs at least two images in each set, got 1'):
        kernel_distance(a, b[:1])


def brute_force(a, b, neighbours=3):
    """Share of the rows of a that lie in a ball of b, which reaches to the third neighbour."""
    a, b = a.numpy(), b.numpy()
    inside = 0
    for row in a:
        for index, centre in enumerate(b):
            radius = sorted(np.linalg.norm(other - centre) for at, other in enumerate(b) if at != index)[neighbours - 1]
            if np.linalg.norm(row - centre) <= radius:
                inside += 1
                break
    return inside / len(a)


def test_precision_and_recall_are_those_of_a_direct_computation():
    generated, reference = features(25), features(30, seed=1, shift=1.0) * 0.8
    found = precision_recall(generated, reference)
    assert found == dict(
        precision=pytest.approx(brute_force(generated, reference)),
        recall=pytest.approx(brute_force(reference, generated)),
    )
    assert found['precision'] != found['recall']
    assert precision_recall(generated, generated) == dict(precision=1, recall=1)
    assert precision_recall(generated, generated + 100) == dict(precision=0, recall=0)
    with pytest.raises(StatisticsError, match='more images than these in a set, got 3'):
        precision_recall(generated, reference[:3])


def test_inception_score_is_that_of_its_definition():
    logits = features(40, dims=6) * 2
    order = np.random.RandomState(2020).permutation(40)  # torch-fidelity's order
    p = logits.double().softmax(1).numpy()[order]
    parts = []
    for rows in np.split(p, 10):
        mean = rows.mean(0)
        parts.append(np.exp((rows * np.log(rows / mean)).sum(1).mean()))
    assert inception_score(logits) == {
        'is': pytest.approx(np.mean(parts), rel=1e-9),
        'is_std': pytest.approx(np.std(parts), rel=1e-9),
    }
    # images that are surely of ten classes, as often each: ten classes in each part give 10
    sure = torch.full((1000, 10), -1e4)
    sure[range(1000), [index % 10 for index in range(1000)]] = 0
    assert inception_score(sure)['is'] == pytest.approx(10, rel=0.05)
    with pytest.raises(StatisticsError, match='mean of 10 parts, and there are only 9 images'):
        inception_score(logits[:9])


def test_without_torch_fidelity_the_error_has_the_command(monkeypatch):
    monkeypatch.setattr('addp_mm.evaluation.generation_scores.find_spec', lambda name: None)
    for call in (inception_score, lambda rows: kernel_distance(rows, rows), lambda rows: precision_recall(rows, rows)):
        with pytest.raises(UserError, match=r"pip install 'addp_mm\[fidelity\]'"):
            call(features(12))
