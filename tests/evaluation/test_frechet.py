# Copyright (c) addp_mm contributors. Apache-2.0.
import math

import numpy as np
import pytest
import torch
from helpers import two_ranks_metrics
from helpers.jobs import in_two, records
from helpers.tiny_extractor import BACKBONE, predictions, write_weights
from scipy import linalg

from addp_mm.checkpoints.errors import CheckpointError
from addp_mm.errors import UserError
from addp_mm.evaluation import (
    BackboneFeatures,
    CodebookUsage,
    PeakSignalNoiseRatio,
    ReconstructionFID,
    StructuralSimilarity,
    build_extractor,
)
from addp_mm.registry import METRICS


@pytest.fixture(scope='module')
def config(tmp_path_factory):
    return write_weights(tmp_path_factory.mktemp('weights') / 'tiny.pth')


@pytest.fixture(scope='module')
def extractor(config):
    return build_extractor(config)


def features_by_hand(extractor, images):
    """Rounded to 8 bits and normalised in numpy, one image after the other."""
    mean, std = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])
    rows = []
    for image in images:
        levels = np.rint(image.numpy().clip(0, 1) * 255) / 255
        x = torch.from_numpy((levels - mean[:, None, None]) / std[:, None, None]).float()
        rows.append(extractor.network(x[None])[-1][0].double().detach().numpy())
    return np.stack(rows)


def distance_by_hand(extractor, originals, others):
    a, b = (features_by_hand(extractor, images) for images in (originals, others))
    root = linalg.sqrtm(np.cov(a, rowvar=False) @ np.cov(b, rowvar=False)).real
    return ((a.mean(0) - b.mean(0)) ** 2).sum() + np.trace(np.cov(a, rowvar=False) + np.cov(b, rowvar=False) - 2 * root)


def images_of(samples, key='image'):
    return [sample[key] for sample in samples]


def test_reconstruction_fid_names_its_extractor(config, extractor):
    metric = METRICS.build(dict(type='addp_mm.ReconstructionFID', extractor=config))
    samples = predictions(31)
    for start in (0, 12, 24):
        metric.process({}, samples[start : start + 12])
    found = metric.evaluate(31)
    assert found == {
        'reconstruction/rfid[tiny-vit]': pytest.approx(
            distance_by_hand(extractor, images_of(samples), images_of(samples, 'reconstruction')), rel=1e-4
        )
    }
    # no state of the first evaluation remains
    metric.process({}, predictions(31, seed=5))
    assert metric.evaluate(31) != found


def test_images_that_the_sampler_repeats_are_left_out(extractor):
    metric = ReconstructionFID(extractor)
    samples = predictions(20)
    metric.process({}, samples)
    expected = metric.evaluate(20)
    metric.process({}, samples[:19])
    assert metric.evaluate(19) != pytest.approx(expected, rel=1e-3)
    metric.process({}, [*samples, samples[0]])
    assert metric.evaluate(20) == pytest.approx(expected, rel=1e-5)


def test_what_changes_features_changes_the_fingerprint(config, extractor, tmp_path):
    again = build_extractor(config)
    assert again.fingerprint == extractor.fingerprint
    changed = [
        write_weights(tmp_path / 'a.pth', seed=2),
        dict(config, input_size=32),
        dict(config, mean=[0, 0, 0]),
        dict(config, backbone=dict(config['backbone'], out_type='cls_token')),
    ]
    assert len({build_extractor(cfg).fingerprint for cfg in [config, *changed]}) == 5


def test_grey_images_are_repeated_and_other_channels_are_refused(extractor, tmp_path):
    grey = torch.randint(256, (2, 1, 16, 16), dtype=torch.uint8)
    assert torch.equal(extractor(grey), extractor(grey.repeat(1, 3, 1, 1)))
    with pytest.raises(ValueError, match='tiny-vit takes 3 channels, but the images have 5'):
        extractor(torch.zeros(1, 5, 16, 16, dtype=torch.uint8))
    with pytest.raises(TypeError, match='uint8'):
        extractor(torch.rand(1, 3, 16, 16))
    five = write_weights(tmp_path / 'five.pth', in_channels=5)
    metric = ReconstructionFID(dict(five, mean=[0.5] * 5, std=[0.25] * 5))
    metric.process({}, predictions(12, channels=5))
    assert metric.evaluate(12)['reconstruction/rfid[tiny-vit]'] > 0


def test_maps_are_averaged_and_tokens_are_refused(config, extractor):
    images = torch.randint(256, (2, 3, 16, 16), dtype=torch.uint8)
    as_map = build_extractor(dict(config, backbone=dict(config['backbone'], out_type='featmap', final_norm=False)))
    assert as_map(images).shape == (2, 8)
    assert not as_map.train().network.training
    raw = build_extractor(dict(config, backbone=dict(config['backbone'], out_type='raw')))
    with pytest.raises(ValueError, match=r"gives features \(2, 17, 8\).*out_type='avg_featmap'"):
        raw(images)


def test_random_weights_and_false_names_are_refused(config):
    with pytest.raises(CheckpointError, match='random weights have no meaning'):
        BackboneFeatures(BACKBONE, 'tiny')
    for name in ('inception-v3', 'a b', ''):
        with pytest.raises(ValueError, match='the name of the extractor'):
            build_extractor(dict(config, name=name))


def test_without_torch_fidelity_the_error_has_the_command_to_install_it(monkeypatch):
    monkeypatch.setattr('addp_mm.evaluation.inception_features.find_spec', lambda name: None)
    with pytest.raises(UserError, match=r"pip install 'addp_mm\[fidelity\]'\nor use the features of another network"):
        ReconstructionFID()


def test_two_processes_measure_the_same_as_one(tmp_path, config, extractor):
    """31 images on two processes, in turn; the sampler repeats an image for the second process."""
    in_two(tmp_path, 'ranks', two_ranks_metrics.job, config=config)
    zero, one = (records(tmp_path)[f'ranks_{rank}'] for rank in range(2))
    samples = predictions(31)
    expected = {}
    for metric in (PeakSignalNoiseRatio(), StructuralSimilarity(), CodebookUsage(32), ReconstructionFID(extractor)):
        metric.process({}, samples)
        expected.update(metric.evaluate(31))
    assert len(expected) == 5
    assert zero == one == pytest.approx(expected, rel=1e-5)
    assert not any(math.isnan(value) for value in expected.values())
