# Copyright (c) addp_mm contributors. Apache-2.0.
"""A measured training step has the images of the size that it names."""

from helpers.recipes import load_recipe

import addp_mm  # noqa: F401  # before the packages, which need its mmcv._ext
from addp_mm.analysis.training_step import TrainingStep


def test_a_segmentor_does_not_pad_small_images_to_its_crops():
    cfg = load_recipe('seg/upernet_addp-vit-nano-p8_from-scratch_1xb16-fp32-400i_fashion-scenes-64px.py')
    for preprocessor in (cfg.get('data_preprocessor'), cfg.model.get('data_preprocessor')):
        if preprocessor:
            preprocessor.size = (64, 64)
    step = TrainingStep(cfg, batch_size=2, img_size=(32, 48))
    seen = []
    step.model.backbone.register_forward_pre_hook(lambda module, args: seen.append(tuple(args[0].shape)))
    step()
    assert seen == [(2, 3, 32, 48)]
