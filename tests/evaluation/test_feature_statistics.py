# Copyright (c) addp_mm contributors. Apache-2.0.
import numpy as np
import pytest
import torch
from scipy import linalg

from addp_mm.evaluation import FeatureStatistics, StatisticsError, frechet_distance


def features(count, dims=6, seed=0, shift=0.0):
    generator = torch.Generator().manual_seed(seed)
    mixing = torch.randn(dims, dims, generator=generator)
    return (torch.randn(count, dims, generator=generator) @ mixing + shift).float()


def statistics_of(rows, batches=1, fingerprint='f'):
    statistics = FeatureStatistics('net', fingerprint)
    for batch in rows.tensor_split(batches):
        statistics.update(batch)
    return statistics


def distance_by_scipy(a, b):
    """The textbook formula with a general matrix root."""
    a, b = a.double().numpy(), b.double().numpy()
    root = linalg.sqrtm(np.cov(a, rowvar=False) @ np.cov(b, rowvar=False))
    return ((a.mean(0) - b.mean(0)) ** 2).sum() + np.trace(
        np.cov(a, rowvar=False) + np.cov(b, rowvar=False) - 2 * root.real
    )


@pytest.mark.parametrize('batches', [1, 7, 41])
def test_mean_and_covariance_are_numpys(batches):
    rows = features(41, shift=1e4)  # in float32, sums of squares would lose all digits of the covariance
    statistics = statistics_of(rows, batches)
    assert statistics.count == 41
    np.testing.assert_allclose(statistics.mean, rows.double().numpy().mean(0), rtol=1e-12)
    np.testing.assert_allclose(statistics.covariance, np.cov(rows.double().numpy(), rowvar=False), rtol=1e-8)


def test_distance_is_that_of_a_general_matrix_root():
    a, b = features(60), features(80, seed=1, shift=0.5)
    found = frechet_distance(statistics_of(a, 4), statistics_of(b, 3))
    assert found == pytest.approx(distance_by_scipy(a, b), rel=1e-9)
    assert found == pytest.approx(frechet_distance(statistics_of(b), statistics_of(a)), rel=1e-9)


@pytest.mark.parametrize('count, dims, shift', [(400, 16, 0.0), (400, 16, 1e3), (30, 40, 0.0)])
def test_distance_is_that_of_torchmetrics(count, dims, shift):
    fid = pytest.importorskip('torchmetrics.image.fid')
    extractor = torch.nn.Flatten()
    extractor.num_features = dims
    a, b = features(count, dims, shift=shift), features(count, dims, seed=1, shift=shift + 0.5)
    metric = fid.FrechetInceptionDistance(extractor, normalize=True)
    for rows, real in ((a, True), (b, False)):
        metric.update(rows[:, :, None, None], real=real)
    # torchmetrics returns float32
    expected = pytest.approx(metric.compute().item(), rel=1e-5)
    assert frechet_distance(statistics_of(a, 4), statistics_of(b, 3)) == expected


def test_distance_of_gaussians_that_differ_by_scale_and_mean():
    a = torch.eye(3).repeat(20, 1) * 2
    b = 3 * a + 1
    covariance = np.trace(np.cov(a.numpy(), rowvar=False))
    step = ((b.mean(0) - a.mean(0)) ** 2).sum().item()
    # b's covariance is 9 times a's: tr(A + 9 A - 2 * 3 A)
    assert frechet_distance(statistics_of(a), statistics_of(b)) == pytest.approx(step + 4 * covariance)


def test_singular_covariances_are_supported():
    """Five images of forty features: a general matrix root is unreliable there."""
    a = features(5, 40)
    assert frechet_distance(statistics_of(a), statistics_of(a)) == pytest.approx(0, abs=1e-4)
    shifted = frechet_distance(statistics_of(a), statistics_of(a + 2))
    assert shifted == pytest.approx(40 * 4, rel=1e-5)
    # in the subspace of the features the covariance is not singular
    plane = features(30, 2, seed=3)
    wide = lambda rows: torch.nn.functional.pad(rows, (0, 6))  # noqa: E731
    assert frechet_distance(statistics_of(wide(plane)), statistics_of(wide(2 * plane + 1))) == pytest.approx(
        distance_by_scipy(plane, 2 * plane + 1), rel=1e-6
    )


def test_few_images_give_a_warning(monkeypatch):
    said = []
    monkeypatch.setattr('addp_mm.evaluation.feature_statistics.print_log', lambda words, **_: said.append(words))
    frechet_distance(statistics_of(features(6)), statistics_of(features(7)))
    assert len(said) == 1
    assert said[0].startswith('6 images are few for 6 features of net')
    with pytest.raises(StatisticsError, match='at least two images, got 1'):
        frechet_distance(statistics_of(features(1)), statistics_of(features(7)))


def test_saved_statistics_are_read_again(tmp_path):
    statistics = statistics_of(features(30))
    statistics.save(tmp_path / 'deep' / 'reference.stats')
    again = FeatureStatistics.load(tmp_path / 'deep' / 'reference.stats')
    assert (again.count, again.extractor, again.fingerprint) == (30, 'net', 'f')
    torch.testing.assert_close(again.covariance, statistics.covariance)
    other = statistics_of(features(20, seed=4))
    assert frechet_distance(again, other) == pytest.approx(frechet_distance(statistics, other))
    with pytest.raises(StatisticsError, match=r'extractors net \(fingerprint f\) and net \(g\) differ'):
        frechet_distance(again, statistics_of(features(20), fingerprint='g'))


def test_files_that_are_not_statistics_are_named(tmp_path):
    with pytest.raises(
        StatisticsError, match=r'none.npz does not exist. Give a folder of images, .* IMAGES --statistics FILE'
    ):
        FeatureStatistics.load(tmp_path / 'none.npz')
    foreign = tmp_path / 'foreign.npz'
    np.savez(foreign, mu=np.zeros(3), sigma=np.eye(3))
    with pytest.raises(StatisticsError, match='has no count, extractor, fingerprint; it has mu, sigma. Without them'):
        FeatureStatistics.load(foreign)
    for content in (b'', b'PK\x03\x04 broken', b'text'):
        foreign.write_bytes(content)
        with pytest.raises(StatisticsError, match='foreign.npz is not a .npz file of statistics'):
            FeatureStatistics.load(foreign)
    np.save(tmp_path / 'array.npy', np.zeros(3))
    with pytest.raises(StatisticsError, match='array.npy is not a .npz file'):
        FeatureStatistics.load(tmp_path / 'array.npy')


def test_bad_features_are_refused():
    with pytest.raises(ValueError, match=r'got \(2, 3, 4\)'):
        FeatureStatistics('net', 'f').update(torch.rand(2, 3, 4))
    with pytest.raises(ValueError, match='features of net are not finite'):
        FeatureStatistics('net', 'f').update(torch.tensor([[1.0, float('nan')]]))
