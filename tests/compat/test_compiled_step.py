# Copyright (c) addp_mm contributors. Apache-2.0.
"""What compile=True leaves uncompiled."""

import torch

import addp_mm  # noqa: F401  # before the packages: they need its mmcv._ext
from addp_mm.benchmark.compilations import recorded_compilations


def graphs_of(function, *arguments) -> int:
    """Graphs that are compiled in two calls, of which the second must give the same."""
    with recorded_compilations() as compilations:
        compiled = torch.compile(lambda *inputs: function(*inputs), backend='eager')
        compiled(*arguments)
        compiled(*arguments)
        return compilations.counts.graphs


def test_data_preprocessors_and_classes_derived_from_them_are_not_compiled():
    from mmengine.model import BaseDataPreprocessor, ImgDataPreprocessor

    class Doubled(BaseDataPreprocessor):
        def forward(self, data, training=False):
            return data * 2

    class Derived(Doubled):
        pass

    images = torch.ones(1, 3, 4, 4)
    for preprocessor in (Doubled(), Derived()):
        assert graphs_of(preprocessor, images) == 0
        assert torch.equal(preprocessor(images), 2 * images)
    assert graphs_of(ImgDataPreprocessor(mean=[0] * 3, std=[1] * 3), dict(inputs=list(images))) == 0


def test_an_update_is_not_compiled_and_takes_parameter_groups_of_a_config():
    from mmengine.config import ConfigDict
    from mmengine.optim import build_optim_wrapper

    model = torch.nn.Linear(2, 2)
    cfg = ConfigDict(
        type='OptimWrapper',
        optimizer=dict(type='SGD', lr=0.1, weight_decay=0.05),
        paramwise_cfg=dict(bias_decay_mult=0.0),
        clip_grad=dict(max_norm=1.0),
    )
    wrapper = build_optim_wrapper(model, cfg)
    before = model.weight.detach().clone()

    def step(images):
        wrapper.update_params(model(images).sum())

    assert graphs_of(step, torch.ones(1, 2)) == 1  # the forward pass
    assert not torch.equal(model.weight, before)


def test_heads_of_detectors_are_not_compiled_and_their_features_are():
    from mmdet.models import BaseDetector
    from mmdet.models.dense_heads.base_dense_head import BaseDenseHead
    from mmdet.models.roi_heads.base_roi_head import BaseRoIHead

    def parts(base):
        class Head(base):
            def loss(self, x):
                return x.sum() + 1

        return Head.loss

    def detector_loss(features, heads):
        class Detector(BaseDetector):
            def loss(self, inputs, data_samples):
                return sum(head(None, features(inputs) + 1) for head in heads)

        return Detector.loss

    heads = [parts(base) for base in (BaseDenseHead, BaseRoIHead)]
    images = torch.ones(1)
    assert [graphs_of(head, None, images) for head in heads] == [0, 0]
    assert graphs_of(detector_loss(lambda x: x * 2, heads), None, images, None) == 1  # the features


def test_the_logged_accuracy_is_not_compiled():
    from mmseg.models.decode_heads import decode_head

    logits, labels = torch.rand(1, 3, 2, 2), torch.tensor([[[0, 1], [2, 255]]])
    assert graphs_of(lambda: decode_head.accuracy(logits, labels, ignore_index=255)) == 0


def test_drop_rates_of_numpy_end_no_graph():
    import numpy as np
    from mmcv.cnn.bricks import DropPath

    layers = torch.nn.Sequential(*(DropPath(rate) for rate in np.linspace(0.1, 0.2, 3)))
    assert type(layers[0].drop_prob) is float
    assert graphs_of(layers, torch.ones(2, 3)) == 1
