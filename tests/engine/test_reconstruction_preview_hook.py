# Copyright (c) addp_mm contributors. Apache-2.0.
import cv2
import numpy as np
import pytest
import torch
from helpers.tiny_addp import MODEL, build_model
from helpers.tiny_pretraining import SeededNoise, build_runner
from mmengine.registry import DefaultScope
from mmengine.structures import BaseDataElement

from addp_mm.engine.hooks import ReconstructionPreviewHook
from addp_mm.registry import MODELS


def tokenizer_training():
    with DefaultScope.overwrite_default_scope('mmpretrain'):
        return MODELS.build(
            dict(
                type='addp_mm.TokenizerPretrain',
                tokenizer=MODEL['tokenizer'],
                data_preprocessor=MODEL['data_preprocessor'],
            )
        )


def test_originals_are_above_reconstructions(tmp_path):
    hook = dict(type='addp_mm.ReconstructionPreviewHook', interval=2, num_images=3, side=16)
    runner = build_runner(tmp_path, custom_hooks=[hook], max_iters=3, model=tokenizer_training())
    runner.train()
    strips = {path.name: cv2.imread(str(path)) for path in tmp_path.rglob('vis_image/*.png')}
    assert sorted(strips) == ['reconstructions_2.png', 'reconstructions_3.png']
    first, last = strips['reconstructions_2.png'], strips['reconstructions_3.png']
    assert first.shape == (2 * 18 + 2, 3 * 18 + 2, 3)
    # cv2 reads BGR, and the preprocessor has converted the stored BGR images to RGB
    for index in range(3):
        tile = first[2:18, 2 + 18 * index : 18 + 18 * index]
        assert (tile == SeededNoise().images[index].permute(1, 2, 0).numpy()).all()
    assert (first[:18] == last[:18]).all()
    assert (first[18:] != last[18:]).any()
    assert np.ptp(first[20:36, 2:18]) > 0
    assert runner.model.training


@pytest.mark.parametrize('channels, shown', [(1, (0, 0, 0)), (3, (0, 1, 2)), (5, (0, 1, 2))])
def test_a_test_shows_the_first_predictions(tmp_path, channels, shown):
    images = torch.rand(2, channels, 16, 16)
    samples = [BaseDataElement(image=image, reconstruction=1 - image) for image in images]
    runner = build_runner(tmp_path, model=tokenizer_training())
    hook = ReconstructionPreviewHook(num_images=2, side=16)
    for batch_idx in range(2):
        hook.after_test_iter(runner, batch_idx, outputs=samples[batch_idx:] + samples[:batch_idx])
    (path,) = tmp_path.rglob('vis_image/*.png')
    strip = cv2.imread(str(path))[..., ::-1]
    for column, image in enumerate(images[:, shown]):
        left = 2 + 18 * column
        assert abs(strip[2:18, left : left + 16] / 255 - image.permute(1, 2, 0).numpy()).max() < 0.003
        assert abs(strip[20:36, left : left + 16] / 255 - 1 + image.permute(1, 2, 0).numpy()).max() < 0.003


def test_a_model_that_cannot_reconstruct_is_refused(tmp_path):
    hook = dict(type='addp_mm.ReconstructionPreviewHook')
    runner = build_runner(tmp_path, custom_hooks=[hook], model=build_model())
    with pytest.raises(TypeError, match='reconstruct'):
        runner.train()


def test_bad_options_are_refused():
    with pytest.raises(ValueError, match='interval'):
        ReconstructionPreviewHook(interval=0)
