# Copyright (c) addp_mm contributors. Apache-2.0.
"""Rewards from configs, the user's functions, and results that are no rewards."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from helpers.tiny_addp import MODEL
from mmengine.config import Config
from mmengine.registry import DefaultScope

from addp_mm.alignment.rewards import RewardError, build_reward
from addp_mm.config.config_file import load_config
from addp_mm.datasets.fashion.fashion_mnist import load_garments
from addp_mm.datasets.fashion.fashion_scenes import SceneGenerator
from addp_mm.errors import ConfigError
from addp_mm.registry import MODELS, REWARDS

NO_LABELS = torch.full((4,), -1)


def images(count=4, size=16):
    return torch.rand(count, 3, size, size, generator=torch.Generator().manual_seed(0))


def brightness(images, scale=1.0):
    return scale * images.mean((1, 2, 3))


def test_a_function_of_the_user_alone_and_by_its_registered_name():
    expected = images().mean((1, 2, 3))
    assert torch.equal(build_reward(brightness)(images(), NO_LABELS), expected)
    REWARDS.register_module(module=brightness, name='brightness_of_the_test')
    try:
        reward = build_reward(dict(type='brightness_of_the_test', scale=2.0))
        torch.testing.assert_close(reward(images(), NO_LABELS), 2 * expected)
        assert reward.name == 'brightness_of_the_test'
    finally:
        REWARDS.module_dict.pop('brightness_of_the_test')


def test_labels_are_given_to_functions_that_take_them():
    labels = torch.tensor([3, 1, 4, 1])
    assert build_reward(lambda images, labels: labels + len(images))(images(), labels).tolist() == [7, 5, 8, 5]


def test_the_fingerprint_is_that_of_the_weights():
    class Judge:
        def __init__(self, metric):
            self.scale, self.metric = 2.0, metric

        def __call__(self, images):
            return images.mean((1, 2, 3))

    layers = [torch.nn.Linear(2, 1) for _ in range(2)]
    inside = [build_reward(Judge(SimpleNamespace(network=layer))).fingerprint() for layer in layers]
    assert [build_reward(Judge(layer)).fingerprint() for layer in layers] == inside
    assert inside[0] != inside[1]
    assert build_reward(dict(type=brightness, scale=2.0)).fingerprint() is None
    both = SimpleNamespace(one=layers[0], other=layers[1])
    assert build_reward(Judge(both)).fingerprint() not in (None, *inside)


@pytest.mark.parametrize(
    'result, message',
    [
        (torch.ones(3), r'must return one number for each image, \(4,\), but its result is \(3,\)'),
        (torch.ones(4, 1), r'its result is \(4, 1\)'),
        (0.5, r'its result is \(\)'),
        (torch.tensor([1.0, float('nan'), 2.0, 3.0]), 'is nan for image 1 of a batch'),
        ([1.0, 2.0, float('inf'), 3.0], 'is inf for image 2 of a batch'),
        ('good', 'returned str, but it must be a tensor of numbers'),
        (None, 'returned NoneType'),
    ],
)
def test_results_that_are_no_rewards_are_named(result, message):
    def judge(images):
        return result

    with pytest.raises(RewardError, match=f'the reward judge.*{message}'):
        build_reward(judge)(images(), NO_LABELS)


def test_an_unknown_type_is_named():
    with pytest.raises(ConfigError, match='reward.type is .SceneRewrad., which is not registered.*SceneReward'):
        build_reward(dict(type='SceneRewrad'))


@pytest.fixture(scope='module')
def classifier(tmp_path_factory):
    """Config and weights of a tiny classifier of five classes on 16 px."""
    folder = tmp_path_factory.mktemp('classifier')
    model = dict(
        type='ImageClassifier',
        backbone=dict(
            type='addp_mm.ADDPViT', arch=dict(embed_dims=8, num_layers=1, num_heads=2), img_size=16, patch_size=4
        ),
        head=dict(type='LinearClsHead', num_classes=5, in_channels=8),
        data_preprocessor=dict(mean=[120, 110, 100], std=[60, 50, 55], to_rgb=True),
    )
    path = folder / 'tiny.py'
    path.write_text(f"default_scope = 'mmpretrain'\nmodel = {model!r}\n")
    cfg = load_config(str(path))
    with DefaultScope.overwrite_default_scope('mmpretrain'):
        built = MODELS.build(Config(dict(model=cfg.model)).model)
    for parameter in built.parameters():
        torch.nn.init.normal_(parameter, std=0.5)
    torch.save(built.state_dict(), folder / 'tiny.pth')
    return str(path), str(folder / 'tiny.pth'), built.eval()


def test_the_log_probability_of_a_class(classifier):
    config, checkpoint, model = classifier
    mean, std = torch.tensor([[120.0, 110, 100], [60, 50, 55]]).view(2, 1, 3, 1, 1)
    expected = model((255 * images() - mean) / std, mode='tensor').log_softmax(1)
    labels = torch.tensor([0, 3, 4, 1])
    options = dict(type='ClassifierReward', config=config, checkpoint=checkpoint)
    torch.testing.assert_close(build_reward(options)(images(), labels), expected[range(4), labels])
    torch.testing.assert_close(build_reward(dict(options, target=2))(images(), NO_LABELS), expected[:, 2])
    best = build_reward(dict(options, target='most_likely'))
    torch.testing.assert_close(best(images(), NO_LABELS), expected.amax(1))
    assert best(images(size=40), NO_LABELS).shape == (4,)  # resized to the classifier's size


def test_a_class_that_is_missing_or_unknown(classifier):
    options = dict(type='ClassifierReward', config=classifier[0], checkpoint=classifier[1])
    with pytest.raises(RewardError, match='generated without a class'):
        build_reward(options)(images(), NO_LABELS)
    with pytest.raises(RewardError, match='has 5 classes; there is no class 7'):
        build_reward(dict(options, target=7))(images(), NO_LABELS)
    with pytest.raises(ConfigError, match="target must be a number, 'label' or 'most_likely', got 'best'"):
        build_reward(dict(options, target='best'))


def test_empty_scenes_have_the_reward_0():
    generator = SceneGenerator(load_garments('val'), 64, 'val')
    scenes = np.stack([generator.scene(0).image, generator.background(0).image])
    pixels = torch.from_numpy(scenes).permute(0, 3, 1, 2) / 255
    assert build_reward(dict(type='SceneReward'))(pixels, NO_LABELS).tolist() == [1, 0]


def test_the_round_trip_of_the_tokenizer_by_any_registered_metric(tmp_path):
    tokenizer = MODELS.build(dict(MODEL['tokenizer']))
    torch.save(tokenizer.state_dict(), tmp_path / 'vq.pth')
    with torch.no_grad():
        reconstruction = tokenizer.eval().decode(tokenizer.encode(images())[1]).clamp(0, 1)
    expected = -10 * (images() - reconstruction).square().mean((1, 2, 3)).log10()
    init_cfg = dict(type='addp_mm.Pretrained', checkpoint=str(tmp_path / 'vq.pth'), strict=True)
    options = dict(
        type='MetricReward',
        metric=dict(type='addp_mm.PeakSignalNoiseRatio'),
        tokenizer=dict(MODEL['tokenizer'], init_cfg=init_cfg),
    )
    torch.testing.assert_close(build_reward(options)(images(), NO_LABELS), expected, atol=1e-3, rtol=1e-4)
    usage = dict(options, metric=dict(type='addp_mm.CodebookUsage', codebook_size=16), key='codebook/perplexity')
    assert (build_reward(dict(usage, sign=-1))(images(), NO_LABELS) <= -1).all()
    with pytest.raises(RewardError, match="has no number None: choose key from .*'codebook/perplexity'"):
        build_reward(dict(usage, key=None))(images(), NO_LABELS)
    with pytest.raises(RewardError, match='PeakSignalNoiseRatio cannot be computed.*with tokenizer='):
        build_reward(dict(options, tokenizer=None))(images(), NO_LABELS)
