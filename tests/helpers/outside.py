# Copyright (c) addp_mm contributors. Apache-2.0.
"""Inferencers of three packages predict by the name of a shipped config; writes results.json.

The interpreter has addp_mm from a wheel.
"""

import json
import sys
from pathlib import Path

import numpy as np
import torch
from mmengine.config import Config
from mmengine.registry import MODELS, DefaultScope

import addp_mm

CLASSIFIER = 'addp-vit-nano-p8_ft_1xb32-fp32-300i_fashion-scenes-64px'
DETECTOR = 'mask-rcnn_addp-vit-nano-p8_ft_1xb16-fp32-300i_fashion-scenes-64px'
SEGMENTOR = 'upernet_addp-vit-nano-p8_ft_1xb16-fp32-400i_fashion-scenes-64px'
IMAGE = np.random.default_rng(0).integers(0, 255, (64, 64, 3), dtype=np.uint8)


def random_weights(name: str, scope: str) -> str:
    """Write a checkpoint of the config's model, in the format of a Runner; return its path."""
    cfg = Config.fromfile(addp_mm.config_path(name))
    torch.manual_seed(0)
    with DefaultScope.overwrite_default_scope(scope):
        model = MODELS.build(cfg.model)
    classes = tuple('abcdefghij') if scope != 'mmseg' else tuple('0abcdefghij')
    meta = dict(dataset_meta=dict(classes=classes, palette=[[10 * i] * 3 for i in range(len(classes))]))
    torch.save(dict(meta=meta, state_dict=model.state_dict()), f'{scope}.pth')
    return f'{scope}.pth'


def classify() -> dict:
    from mmpretrain import get_model, inference_model, list_models

    weights = random_weights(CLASSIFIER, 'mmpretrain')
    assert CLASSIFIER in list_models('*addp*'), list_models('*addp*')
    model = get_model(CLASSIFIER, pretrained=weights)
    result = inference_model(CLASSIFIER, IMAGE, pretrained=weights)
    pixels = torch.from_numpy(IMAGE).permute(2, 0, 1)[None]
    pixels = model.data_preprocessor(dict(inputs=pixels))['inputs']
    with torch.no_grad():
        by_hand = model(pixels).softmax(dim=1)[0]
    return {'classifier': result['pred_scores'].tolist(), 'classifier by hand': by_hand.tolist()}


def detect() -> dict:
    from mmdet.apis import DetInferencer

    inferencer = DetInferencer(DETECTOR, random_weights(DETECTOR, 'mmdet'), device='cpu', show_progress=False)
    prediction = inferencer(IMAGE, return_vis=True, no_save_vis=True)['predictions'][0]
    return {'detector': sorted(prediction), 'detector classes': len(inferencer.model.dataset_meta['classes'])}


def segment() -> dict:
    from mmseg.apis import MMSegInferencer

    inferencer = MMSegInferencer(SEGMENTOR, random_weights(SEGMENTOR, 'mmseg'), device='cpu')
    labels = inferencer(IMAGE)['predictions']
    return {'segmentor': list(labels.shape), 'segmentor labels': int(labels.max()) + 1}


def inherit() -> dict:
    Path('child.py').write_text(f"_base_ = 'addp_mm::cls/{CLASSIFIER}.py'\nmodel = dict(head=dict(num_classes=3))\n")
    return {'inherited': Config.fromfile('child.py').model.head.num_classes}


if __name__ == '__main__':
    origin = {'package': addp_mm.__file__, 'sys.path': sys.path}
    Path('results.json').write_text(json.dumps({**origin, **detect(), **segment(), **classify(), **inherit()}))
