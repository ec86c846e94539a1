# Copyright (c) addp_mm contributors. Apache-2.0.
"""Models of configs with random weights: each weight is a number."""

from importlib.util import find_spec
from pathlib import Path

import pytest
import torch
from mmengine.config import Config

import addp_mm  # noqa: F401  # before the packages, which need its mmcv._ext
from addp_mm.analysis.batches import build_model

MMDET = Path(find_spec('mmdet').origin).parent / '.mim/configs'


@pytest.mark.parametrize(
    'config, undefined',
    [
        ('deformable_detr/deformable-detr_r50_16xb2-50e_coco.py', 'level_embed'),
        ('ssd/ssd300_coco.py', 'neck.l2_norm.weight'),
    ],
)
def test_weights_that_a_constructor_leaves_undefined_are_drawn(config, undefined):
    before = torch.get_deterministic_debug_mode()
    model = build_model(Config.fromfile(MMDET / config))
    assert all(weight.isfinite().all() for weight in model.parameters())
    weight = model.get_parameter(undefined)
    assert 0.01 < weight.std() < 0.03
    assert torch.get_deterministic_debug_mode() == before
