# Copyright (c) addp_mm contributors. Apache-2.0.
import numpy as np
import pytest
import torch
from helpers.image_sets import ColourFeatures, pixels, write_folder
from helpers.tiny_extractor import write_weights
from mmengine.registry import DefaultScope

from addp_mm.checkpoints.errors import CheckpointError
from addp_mm.checks.metric_names import metric_names
from addp_mm.errors import ConfigError
from addp_mm.evaluation import (
    ClassifierFeatures,
    FeatureStatistics,
    GenerationMetric,
    Reference,
    StatisticsError,
    build_extractor,
    frechet_distance,
)
from addp_mm.evaluation.generation_scores import inception_score, kernel_distance, precision_recall
from addp_mm.registry import METRICS, MODELS


def predictions(count, seed=0):
    images = torch.from_numpy(pixels(count, 16, seed)).permute(0, 3, 1, 2)
    # within half a level: rounded to the same 8 bits
    return [dict(image=(image + 0.4) / 255) for image in images]


def features_of(extractor, count, seed=0):
    return extractor(torch.from_numpy(pixels(count, 16, seed)).permute(0, 3, 1, 2))


@pytest.fixture
def folder(tmp_path):
    return write_folder(tmp_path / 'reference', pixels(30, 16, seed=1))


def run(metric, count, seed=0):
    samples = predictions(count, seed)
    for start in range(0, count, 7):
        metric.process({}, samples[start : start + 7])
    return metric.evaluate(count)


def test_all_scores_are_those_of_the_features(folder, tmp_path):
    extractor = ColourFeatures()
    metric = GenerationMetric(['fid', 'is', 'kid', 'prc'], str(folder), extractor, cache_dir=tmp_path / 'cache')
    found = run(metric, 24)
    generated, reference = features_of(extractor, 24), features_of(extractor, 30, 1)
    statistics = [FeatureStatistics('inception-v3', 'colours') for _ in range(2)]
    for one, rows in zip(statistics, (generated, reference), strict=True):
        one.update(rows)
    expected = {
        'fid': frechet_distance(*statistics),
        **inception_score(generated[:, :4] / 10),
        **kernel_distance(generated, reference),
        **precision_recall(generated, reference),
    }
    assert found == {f'generation/{name}': pytest.approx(value, rel=1e-5) for name, value in expected.items()}
    assert metric_names(metric) == list(found)
    # images that the sampler repeats are left out
    metric.process({}, predictions(24))
    metric.process({}, predictions(1, seed=9))
    assert metric.evaluate(24) == found


def test_images_against_themselves(tmp_path):
    folder = write_folder(tmp_path / 'a', pixels(24, 16))
    found = run(GenerationMetric(['fid', 'prc'], folder, ColourFeatures(), cache_dir=tmp_path / 'cache'), 24)
    assert found['generation/fid'] == pytest.approx(0, abs=1e-6)
    assert (found['generation/precision'], found['generation/recall']) == (1, 1)


def test_a_backbone_serves_for_all_but_the_inception_score(folder, tmp_path):
    config = write_weights(tmp_path / 'tiny.pth')
    options = dict(reference=str(folder), extractor=config, cache_dir=str(tmp_path / 'cache'))
    metric = METRICS.build(dict(type='addp_mm.GenerationMetric', scores=['fid', 'kid', 'prc'], **options))
    names = ['fid', 'kid', 'kid_std', 'precision', 'recall']
    found = run(metric, 24)
    assert list(found) == [f'generation/{name}[tiny-vit]' for name in names]
    rows = [features_of(metric.extractor, *which) for which in ((24, 0), (30, 1))]
    assert found['generation/kid[tiny-vit]'] == pytest.approx(kernel_distance(*rows)['kid'], rel=1e-3)
    with pytest.raises(ConfigError, match='is cannot be computed: tiny-vit has no class logits'):
        GenerationMetric(['is'], **options)
    with pytest.raises(ConfigError, match='fid cannot be computed: there is no reference'):
        GenerationMetric(extractor=metric.extractor)


def test_the_key_of_adms_statistics_names_the_convention(tmp_path):
    rows = features_of(ColourFeatures(), 30, 1).double().numpy()
    np.savez(tmp_path / 'adm.npz', mu=rows.mean(0), sigma=np.cov(rows, rowvar=False))
    metric = GenerationMetric(reference=tmp_path / 'adm.npz', extractor=ColourFeatures())
    assert list(run(metric, 24)) == metric_names(metric) == ['generation/fid_adm']


def classifier(tmp_path, **changes):
    """A tiny classifier with saved weights, as an extractor's config."""
    cfg = dict(
        type='mmpretrain.ImageClassifier',
        backbone=dict(
            type='addp_mm.ADDPViT',
            arch=dict(embed_dims=8, num_layers=1, num_heads=2),
            img_size=16,
            patch_size=4,
            out_type='avg_featmap',
        ),
        head=dict(type='mmpretrain.LinearClsHead', num_classes=5, in_channels=8),
    )
    cfg.update(changes)
    torch.save(MODELS.build(cfg).state_dict(), tmp_path / 'classifier.pth')
    weights = dict(type='addp_mm.Pretrained', checkpoint=str(tmp_path / 'classifier.pth'))
    return dict(type='addp_mm.ClassifierFeatures', name='tiny-classes', classifier=dict(cfg, init_cfg=weights))


def test_a_classifier_gives_an_inception_score_in_its_classes(folder, tmp_path):
    with DefaultScope.overwrite_default_scope('mmpretrain'):
        extractor = build_extractor(classifier(tmp_path))
        assert isinstance(extractor, ClassifierFeatures)
        images = torch.from_numpy(pixels(20, 16)).permute(0, 3, 1, 2)
        vectors, logits = extractor.with_logits(images)
        model = extractor.network
        prepared = (images.float() / 255 - extractor.mean) / extractor.std
        torch.testing.assert_close(logits, model(prepared, mode='tensor'))
        torch.testing.assert_close(vectors, model.backbone(prepared)[-1])
        assert torch.equal(extractor(images), vectors)
        found = run(GenerationMetric(['is', 'fid'], folder, extractor, cache_dir=tmp_path / 'cache'), 20)
        assert list(found) == [f'generation/{name}[tiny-classes]' for name in ('fid', 'is', 'is_std')]
        assert found['generation/is[tiny-classes]'] == pytest.approx(inception_score(logits)['is'])
        with pytest.raises(ValueError, match='the classifier has no head. Use BackboneFeatures'):
            build_extractor(classifier(tmp_path, head=None))
        without = classifier(tmp_path)
        del without['classifier']['init_cfg']
        with pytest.raises(CheckpointError, match='random weights have no meaning'):
            build_extractor(without)


def test_extractors_are_named_by_their_config(tmp_path):
    config = write_weights(tmp_path / 'tiny.pth')
    (tmp_path / 'mine.py').write_text(f'extractor = {config!r}\n')
    assert build_extractor(str(tmp_path / 'mine.py')).name == 'tiny-vit'
    assert build_extractor('addp-vit-nano-p8').name == 'addp-vit-nano-p8'
    with pytest.raises(ConfigError, match='nano is neither a config file nor the name of an extractor'):
        build_extractor('nano')


def test_features_that_are_not_finite_are_refused(folder, tmp_path):
    metric = GenerationMetric(['kid'], folder, ColourFeatures(), cache_dir=tmp_path / 'cache')
    metric.process({}, [*predictions(5), *predictions(1)])
    metric.results[2] = (metric.results[2][0] * torch.nan,)
    with pytest.raises(StatisticsError, match=r'inception-v3 are not finite \(NaN or Inf\)'):
        metric.evaluate(6)


def test_few_images_are_said_with_both_numbers(folder, tmp_path, monkeypatch):
    said = []
    monkeypatch.setattr('addp_mm.evaluation.feature_statistics.print_log', lambda words, **_: said.append(words))
    run(GenerationMetric(['fid'], folder, ColourFeatures(), cache_dir=tmp_path / 'cache'), 5)
    assert len(said) == 1
    assert said[0].startswith('5 images are few for 6 features of inception-v3: their covariance is singular')


def test_the_reference_is_computed_once(folder, tmp_path):
    first, second = ColourFeatures(), ColourFeatures()
    for extractor in (first, second):
        GenerationMetric(['fid'], folder, extractor, cache_dir=tmp_path / 'cache')
    assert (first.seen, second.seen) == (30, 0)
    assert len(Reference(folder, second, cache_dir=tmp_path / 'cache').features()) == 30
    assert second.seen == 0
