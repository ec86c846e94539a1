# Copyright (c) addp_mm contributors. Apache-2.0.
"""Inferencers of three packages on configs of ours, built under one default scope and called under another.

mmpretrain#1839: what an Inferencer builds late (collation, visualizer, pipeline) comes from the scope of that moment.
"""
from pathlib import Path

import numpy as np
import pytest
import torch
from mmengine.registry import DefaultScope

import addp_mm  # noqa: F401  # before the packages: they need its mmcv._ext

CONFIGS = Path(__file__).parents[2] / 'configs'


def config_of(task: str) -> str:
    (path, ) = (CONFIGS / task).glob('*nano-p8_from-scratch_*.py')
    return str(path)


def segment(folder: Path):
    from mmseg.apis import MMSegInferencer
    inferencer = MMSegInferencer(config_of('seg'), device='cpu')
    return lambda image: inferencer(image, out_dir=str(folder))['predictions']


def detect(folder: Path):
    from mmdet.apis import DetInferencer
    inferencer = DetInferencer(config_of('det'), device='cpu', show_progress=False)
    return lambda image: np.array(inferencer(image, out_dir=str(folder))['predictions'][0]['bboxes'])


def classify(folder: Path):
    from mmpretrain import ImageClassificationInferencer
    inferencer = ImageClassificationInferencer(config_of('cls'), device='cpu')
    return lambda image: inferencer(image, show_dir=str(folder))[0]['pred_scores']


@pytest.mark.slow
@pytest.mark.parametrize('make, own, others', [
    (segment, 'mmseg', ('mmpretrain', 'mmdet')),
    (detect, 'mmdet', ('mmseg', 'mmpretrain')),
    (classify, 'mmpretrain', ('addp_mm', 'mmseg')),
])
def test_an_inferencer_is_the_same_under_any_default_scope(make, own, others, tmp_path):
    image = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    results = []
    for building, calling in ((own, own), others):
        torch.manual_seed(0)
        with DefaultScope.overwrite_default_scope(building):
            infer = make(tmp_path / building)
        with DefaultScope.overwrite_default_scope(calling):
            results.append(infer(image))
            assert DefaultScope.get_current_instance().scope_name == calling
    assert len(results[0])
    np.testing.assert_array_equal(*results)
    pictures = [{path.name for path in (tmp_path / name).rglob('*') if path.suffix in ('.png', '.jpg')}
                for name in (own, others[0])]
    assert pictures[0] == pictures[1] != set()
