# Copyright (c) addp_mm contributors. Apache-2.0.
import numpy as np
import pytest
import torch
from helpers.image_sets import ColourFeatures, pixels, write_folder

from addp_mm.evaluation import FeatureStatistics, Reference, StatisticsError, folder_statistics, frechet_distance
from addp_mm.evaluation.compare_images import check_scores, missing_for, score_names
from addp_mm.evaluation.feature_statistics import GivenStatistics


class Backbone(ColourFeatures):
    is_inception = has_logits = False
    name = 'colours'


def features(count=20, seed=0):
    return ColourFeatures()(torch.from_numpy(pixels(count, seed=seed)).permute(0, 3, 1, 2))


def moments(rows):
    rows = rows.double().numpy()
    return dict(mu=rows.mean(0), sigma=np.cov(rows, rowvar=False))


def statistics_of(rows, extractor=None):
    extractor = extractor or ColourFeatures()
    statistics = FeatureStatistics(extractor.name, extractor.fingerprint)
    statistics.update(rows)
    return statistics


def test_a_folder_of_images(tmp_path):
    reference = Reference(write_folder(tmp_path / 'a', pixels(20)), ColourFeatures(), cache_dir=tmp_path / 'cache')
    assert reference.convention == '20 images (convention of ADDP and MAGE)'
    assert not reference.is_adm
    torch.testing.assert_close(reference.features(), features())
    assert frechet_distance(reference.statistics(), statistics_of(features())) == pytest.approx(0, abs=1e-6)
    direct = folder_statistics(tmp_path / 'a', ColourFeatures(), batch_size=3)
    assert direct.count == 20
    torch.testing.assert_close(direct.covariance, reference.statistics().covariance)
    assert 'resized to 4 px' in Reference(tmp_path / 'a', ColourFeatures(), 4).convention
    assert {score: missing_for(score, ColourFeatures(), reference) for score in ('fid', 'is', 'kid', 'prc')} == dict(
        fid=None, kid=None, prc=None, **{'is': None}
    )


def test_statistics_of_adm_are_of_inception(tmp_path):
    np.savez(tmp_path / 'adm.npz', **moments(features(20, 1)), mu_s=np.zeros(3), sigma_s=np.eye(3))
    reference = Reference(tmp_path / 'adm.npz', ColourFeatures())
    assert reference.is_adm
    assert 'convention of ADM, RCG and MAR' in reference.convention
    own = statistics_of(features())
    assert frechet_distance(own, reference.statistics()) == pytest.approx(
        frechet_distance(own, statistics_of(features(20, 1)))
    )
    assert list(score_names('fid', ColourFeatures(), reference)) == ['fid_adm']
    assert 'holds statistics only' in missing_for('kid', ColourFeatures(), reference)
    with pytest.raises(StatisticsError, match='need images: give a folder'):
        reference.features()
    with pytest.raises(StatisticsError, match="taken to be of FID's Inception, and the features here are of colours"):
        Reference(tmp_path / 'adm.npz', Backbone())
    np.savez(tmp_path / 'other.npz', mu=np.zeros(3), sigma=np.eye(3))
    with pytest.raises(StatisticsError, match='statistics of 3 features.*Inception gives 6'):
        Reference(tmp_path / 'other.npz', ColourFeatures())


def test_a_reference_batch_of_adm_has_statistics_and_images(tmp_path):
    """The statistics are of all training images, the images are for precision and recall only."""
    np.savez(tmp_path / 'batch.npz', arr_0=pixels(20), **moments(features(40, 1)))
    reference = Reference(tmp_path / 'batch.npz', ColourFeatures())
    assert reference.is_adm
    assert reference.convention.endswith('and its images for the rest')
    torch.testing.assert_close(reference.features(), features())
    own = statistics_of(features())
    assert frechet_distance(own, reference.statistics()) > 1
    assert missing_for('prc', ColourFeatures(), reference) is None
    # another network has only the images
    reference = Reference(tmp_path / 'batch.npz', Backbone())
    assert not reference.is_adm
    assert reference.convention.startswith('20 images')


def test_own_statistics_name_their_extractor(tmp_path):
    statistics_of(features(), Backbone()).save(tmp_path / 'own.npz')
    reference = Reference(tmp_path / 'own.npz', Backbone())
    assert reference.convention.startswith('statistics of 20 images')
    assert list(score_names('fid', Backbone(), reference)) == ['fid[colours]']
    other = Backbone()
    other.fingerprint = 'other weights'
    with pytest.raises(StatisticsError, match='own.npz: statistics of .* cannot be compared'):
        Reference(tmp_path / 'own.npz', other)


def test_what_is_no_reference_is_refused(tmp_path):
    with pytest.raises(StatisticsError, match='none.npz does not exist. Give a folder'):
        Reference(tmp_path / 'none.npz', ColourFeatures())
    (tmp_path / 'text.npz').write_text('text')
    with pytest.raises(StatisticsError, match='text.npz is neither a folder nor a .npz file'):
        Reference(tmp_path / 'text.npz', ColourFeatures())
    for arrays, words in (
        (dict(images=np.zeros(3)), 'holds neither images nor statistics'),
        (dict(mu=np.zeros(6)), 'has no sigma; it has mu'),
        (dict(mu=np.zeros(6), sigma=np.eye(5)), r'mu must be \(D\) and sigma \(D, D\), got \(6,\) and \(5, 5\)'),
        (dict(mu=np.full(6, np.nan), sigma=np.eye(6)), 'mu or sigma is not finite'),
    ):
        np.savez(tmp_path / 'wrong.npz', **arrays)
        with pytest.raises(StatisticsError, match=words):
            Reference(tmp_path / 'wrong.npz', ColourFeatures())


def test_names_of_scores():
    assert check_scores('kid') == ('kid',)
    assert check_scores(['prc', 'fid', 'fid']) == ('fid', 'prc')
    for wrong, words in ((['fidd'], "'fidd' is unknown; did you mean fid"), ([], 'there is none')):
        with pytest.raises(ValueError, match=f'are fid, is, kid, prc; {words}'):
            check_scores(wrong)
    assert list(score_names('prc', Backbone(), None)) == ['precision[colours]', 'recall[colours]']
    assert 'has no class logits. Use Inception, or ClassifierFeatures' in missing_for('is', Backbone(), None)
    assert 'no reference' in missing_for('fid', ColourFeatures(), None)


def test_too_few_images_are_said_before_features_are_computed(tmp_path):
    network = ColourFeatures()
    three = Reference(write_folder(tmp_path / 'three', pixels(3)), network)
    one = Reference(write_folder(tmp_path / 'one', pixels(1)), network)
    own = FeatureStatistics(network.name, network.fingerprint)
    own.update(network(torch.zeros(2, 3, 8, 8, dtype=torch.uint8)))
    own.save(tmp_path / 'own.npz')
    network.seen = 0
    for reference in (three, Reference(tmp_path / 'own.npz', network)):
        assert missing_for('fid', network, reference, 2) is None
    assert missing_for('kid', network, three, 2) is None
    assert missing_for('fid', network, three) is missing_for('is', network, three, 10) is None
    for score, reference, number, words in (
        ('fid', one, 20, f'at least 2 images in each set; {tmp_path / "one"}: 1'),
        ('fid', three, 1, 'at least 2 images in each set; the generated images: 1'),
        ('kid', one, 1, f'; the generated images: 1, {tmp_path / "one"}: 1'),
        ('prc', three, 20, f'at least 4 images in each set; {tmp_path / "three"}: 3'),
        ('is', three, 9, 'at least 10 images in each set; the generated images: 9'),
    ):
        assert missing_for(score, network, reference, number).endswith(words)
    assert network.seen == 0


def test_the_distance_of_known_gaussians():
    """|m - n|² + tr(A + B - 2 (A B)^½): for diagonal covariances, by dimension."""
    mean, a, b = np.array([1.0, -2.0, 0.5]), np.array([4.0, 1.0, 0.25]), np.array([1.0, 1.0, 9.0])
    given = [
        GivenStatistics(torch.from_numpy(m), torch.diag(torch.from_numpy(v)), 'net', 'f')
        for m, v in ((mean, a), (np.zeros(3), b))
    ]
    expected = (mean**2).sum() + ((np.sqrt(a) - np.sqrt(b)) ** 2).sum()
    assert frechet_distance(*given) == pytest.approx(expected)


def test_features_are_computed_once_without_a_cache_too(tmp_path):
    extractor = ColourFeatures()
    reference = Reference(write_folder(tmp_path / 'a', pixels(20)), extractor)
    for _ in range(2):
        reference.features()
        reference.statistics()
    assert extractor.seen == 20
