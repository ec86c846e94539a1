# Copyright (c) addp_mm contributors. Apache-2.0.
"""The tabs Detect and Segment without a browser, against the functions of mmdet and mmseg."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from helpers.recipes import load_recipe
from mmengine.registry import DefaultScope
from mmengine.structures import InstanceData

import addp_mm  # noqa: F401  # before the packages, which need its mmcv._ext
from addp_mm.app.example_scenes import example_scene
from addp_mm.registry import MODELS

pytest.importorskip('gradio', reason='the extra app is not installed')

from addp_mm.app.dense_predictor import load_predictor  # they need gradio
from addp_mm.app.detect_tab import detected
from addp_mm.app.segment_tab import segmented

DETECTOR = 'det/mask-rcnn_addp-vit-nano-p8_ft_1xb16-fp32-300i_fashion-scenes-64px.py'
SEGMENTOR = 'seg/upernet_addp-vit-nano-p8_ft_1xb16-fp32-400i_fashion-scenes-64px.py'
# larger than the model's input, and not square
PIXELS = np.concatenate([example_scene(0, 96), example_scene(1, 96)[:, :32]], 1)


def predictor_of(recipe, folder, meta=None):
    cfg = load_recipe(recipe)
    cfg.model.backbone.init_cfg = None
    torch.manual_seed(0)
    with DefaultScope.overwrite_default_scope('mmdet' if recipe == DETECTOR else 'mmseg'):
        model = MODELS.build(cfg.model)
    torch.save(dict(state_dict=model.state_dict(), meta=meta or {}), folder / 'model.pth')
    kind = recipe.partition('/')[0]
    return load_predictor(recipe.removeprefix(f'{kind}/').removesuffix('.py'), str(folder / 'model.pth'), kind)


def test_detects_what_mmdet_detects(tmp_path):
    from mmdet.apis import inference_detector

    predictor = predictor_of(DETECTOR, tmp_path)
    predictor.model.cfg = load_recipe(DETECTOR)
    wanted = inference_detector(predictor.model, np.ascontiguousarray(PIXELS[..., ::-1])).pred_instances
    found = predictor(PIXELS).pred_instances
    for name in ('bboxes', 'scores', 'labels', 'masks'):
        assert np.array_equal(np.asarray(found[name]), np.asarray(wanted[name])), name
    least = float(wanted.scores.sort(descending=True).values[4])
    (image, annotations), table = detected(predictor, PIXELS, least)
    assert len(annotations) == 5
    assert image.shape == (4 * 96, 4 * 128, 3)
    best = int(wanted.scores.argmax())
    assert np.array_equal(annotations[0][0][::4, ::4] > 0, np.asarray(wanted.masks[best]))
    assert annotations[0][1].startswith(f'{predictor.classes[wanted.labels[best]]} {wanted.scores[best]:.2f}')
    assert len(table.splitlines()) == 2 + 5
    assert detected(predictor, PIXELS, 1.0)[1] == 'No object has a score of at least 1.00.'


def test_a_detector_without_masks_shows_its_boxes():
    instances = InstanceData(
        bboxes=torch.tensor([[1.0, 2.2, 3.0, 4.0], [-2.0, 0.0, 2.0, 1.0]]),
        scores=torch.tensor([0.4, 0.9]),
        labels=torch.tensor([1, 0]),
    )

    class Predictor:
        classes = ('bag', 'coat')

        def __call__(self, pixels):
            return SimpleNamespace(pred_instances=instances)

    (image, annotations), table = detected(Predictor(), np.zeros((8, 8, 3), np.uint8), 0.3)
    assert [label for _, label in annotations] == ['bag 0.90 (1)', 'coat 0.40 (2)']
    masks = [mask[::64, ::64] > 0 for mask, _ in annotations]
    assert [mask.nonzero()[0].tolist() for mask in masks] == [[0, 0], [2, 2, 3, 3]]
    assert [mask.nonzero()[1].tolist() for mask in masks] == [[0, 1], [1, 2, 1, 2]]
    assert table.splitlines()[2] == '| 1 | bag | 0.90 | -2 0 2 1 |'


def test_segments_what_mmseg_segments(tmp_path):
    from mmseg.apis import inference_model

    predictor = predictor_of(SEGMENTOR, tmp_path, dict(dataset_meta=dict(classes=[f'c{k}' for k in range(11)])))
    assert predictor.classes[10] == 'c10'  # the names of the checkpoint
    predictor.model.cfg = load_recipe(SEGMENTOR)
    predictor.model.cfg.test_pipeline = predictor.model.cfg.test_dataloader.dataset.pipeline
    wanted = inference_model(predictor.model, np.ascontiguousarray(PIXELS[..., ::-1])).pred_sem_seg.data[0].numpy()
    (image, annotations), table = segmented(predictor, PIXELS)
    assert image.shape == (4 * 96, 4 * 128, 3)
    assert len(annotations) == len(np.unique(wanted))
    for mask, name in annotations:
        assert np.array_equal(mask[::4, ::4] > 0, wanted == int(name[1:]))
        assert f'| {name} | {(wanted == int(name[1:])).mean():.1%} |' in table
