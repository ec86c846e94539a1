# Copyright (c) addp_mm contributors. Apache-2.0.
"""mmdet's own configs with ADDPViT. Only backbone and neck are replaced."""

from pathlib import Path

import pytest
from helpers.stock_swaps import WIDTH, build, replaced, run_in_new_process, step_and_predict, write_swap
from helpers.tiny_detection import detection_batch
from mmengine.config import Config

BACKBONE = """
model = dict(
    backbone=dict(_delete_=True, type='addp_mm.ADDPViT', arch=ARCH, img_size=1024, out_type='featmap'),
"""
# These configs do not pad images to multiples of the patch size, which the ViT needs.
ANY_SIZE = BACKBONE.replace("out_type='featmap'", "out_type='featmap', pad_to_patch=True")
FROM_STRIDE_4 = """    neck=dict(_delete_=True, type='addp_mm.SimpleFPN', in_channels=WIDTH, num_outs=5))
"""
FROM_STRIDE_8 = """    neck=dict(
        _delete_=True, type='addp_mm.SimpleFPN', in_channels=WIDTH, scales=(2, 1, 0.5), num_outs=5))
"""
FOUR_SCALES = """
model = dict(
    backbone=dict(
        _delete_=True, type='addp_mm.ADDPViT', arch=ARCH, img_size=1024, out_indices=(0, 1, 2, 3), out_type='featmap',
        final_norm=False),
    neck=dict(type='addp_mm.FourScaleNeck', embed_dims=WIDTH),
    panoptic_head=dict(in_channels=[WIDTH] * 4))
"""
# A config of mmdet, and the text that replaces parts of it.
SWAPS = {
    'faster-rcnn': ('faster_rcnn/faster-rcnn_r50_fpn_1x_coco.py', BACKBONE + FROM_STRIDE_4),
    'mask-rcnn': ('mask_rcnn/mask-rcnn_r50_fpn_1x_coco.py', BACKBONE + FROM_STRIDE_4),
    'cascade-mask-rcnn': ('cascade_rcnn/cascade-mask-rcnn_r50_fpn_1x_coco.py', BACKBONE + FROM_STRIDE_4),
    'point-rend': ('point_rend/point-rend_r50-caffe_fpn_ms-1x_coco.py', BACKBONE + FROM_STRIDE_4),
    'retinanet': ('retinanet/retinanet_r50_fpn_1x_coco.py', BACKBONE + FROM_STRIDE_8),
    'fcos': ('fcos/fcos_r50-caffe_fpn_gn-head_1x_coco.py', BACKBONE + FROM_STRIDE_8),
    'atss': ('atss/atss_r50_fpn_1x_coco.py', BACKBONE + FROM_STRIDE_8),
    'rtmdet': ('rtmdet/rtmdet_l_8xb32-300e_coco.py', ANY_SIZE + FROM_STRIDE_8.replace(', num_outs=5', '')),
    'deformable-detr': (
        'deformable_detr/deformable-detr_r50_16xb2-50e_coco.py',
        ANY_SIZE
        + """    neck=[
        dict(type='addp_mm.SimpleFPN', in_channels=WIDTH, scales=(2, 1, 0.5)),
        dict(_base_.model.neck, in_channels=[256, 256, 256]),
    ])
""",
    ),
    'dino': ('dino/dino-4scale_r50_8xb2-12e_coco.py', ANY_SIZE + FROM_STRIDE_8.replace('num_outs=5', 'num_outs=4')),
    'mask2former-panoptic': ('mask2former/mask2former_r50_8xb2-lsj-50e_coco-panoptic.py', FOUR_SCALES),
    'panoptic-fpn': ('panoptic_fpn/panoptic-fpn_r50_fpn_1x_coco.py', BACKBONE + FROM_STRIDE_4),
}
WITH_MASKS = ('mask-rcnn', 'cascade-mask-rcnn', 'point-rend')
PANOPTIC = ('mask2former-panoptic', 'panoptic-fpn')
STUFF = 80  # the first class that is stuff, not a thing


def read(tmp_path: Path, name: str) -> Config:
    base, model = SWAPS[name]
    cfg = Config.fromfile(write_swap(tmp_path / f'{name}.py', f'mmdet::{base}', model))
    cfg.model.data_preprocessor.batch_augments = None  # Mask2Former pads all images to 1024 px
    for key, few in FEW.items():
        set_everywhere(cfg.model, key, few)
    return cfg


# As many proposals and queries as images of 90 px need.
FEW = {'num': 32, 'max_per_img': 30, 'num_queries': 30}


def set_everywhere(node, key: str, value: int) -> None:
    if isinstance(node, dict):
        for name, child in node.items():
            if name == key:
                node[name] = value
            set_everywhere(child, key, value)
    elif isinstance(node, (list, tuple)):
        for child in node:
            set_everywhere(child, key, value)


@pytest.mark.parametrize('name', SWAPS)
def test_only_backbone_and_neck_are_replaced(name, tmp_path):
    base, model = SWAPS[name]
    path = write_swap(tmp_path / 'swap.py', f'mmdet::{base}', model)
    (tmp_path / 'stock.py').write_text(f"_base_ = 'mmdet::{base}'\n")
    names = replaced(Config.fromfile(path).to_dict(), Config.fromfile(tmp_path / 'stock.py').to_dict())
    # Mask2Former has no neck that could give its four maps ResNet's channels.
    follows = {f'model.panoptic_head.in_channels.{i}' for i in range(4)} if name == 'mask2former-panoptic' else set()
    assert names == {'model.backbone', 'model.neck'} | follows


@pytest.mark.slow
@pytest.mark.parametrize('name', SWAPS)
def test_a_stock_config_trains_and_predicts(name, tmp_path):
    cfg = read(tmp_path, name)
    model = build(cfg)
    sizes = ((72, 90),) if name in WITH_MASKS else ((72, 90), (90, 64))
    batch = detection_batch(sizes, name in WITH_MASKS + PANOPTIC, STUFF if name in PANOPTIC else None)
    logged, idle, predictions = step_and_predict(cfg, model, batch)
    assert all(value.isfinite().all() for value in logged.values())
    assert 'loss' in logged
    assert not [one for one in idle if one.startswith(('backbone.', 'neck.'))]
    assert type(model).__module__.startswith('mmdet.')
    assert model.backbone.embed_dims == WIDTH
    for size, prediction in zip(sizes, predictions, strict=True):
        if name in PANOPTIC:
            assert prediction.pred_panoptic_seg.sem_seg.shape == (1, *size)
            continue
        found = prediction.pred_instances
        assert found.bboxes.shape == (len(found), 4)
        assert found.bboxes.isfinite().all()
        assert found.scores.isfinite().all()
        assert found.labels.lt(80).all()
        if name in WITH_MASKS:
            assert found.masks.shape == (len(found), *size)


BUILD_AND_RUN = """
import sys
{first}
from mmengine.config import Config
from mmengine.registry import init_default_scope
cfg = Config.fromfile({path!r})
cfg.model.num_queries = cfg.model.test_cfg.max_per_img = 20
init_default_scope('mmdet')
from mmdet.registry import MODELS
model = MODELS.build(cfg.model)
import torch
from mmengine.optim import build_optim_wrapper
from helpers.tiny_detection import detection_batch
logged = model.train_step(detection_batch(((64, 96), )), build_optim_wrapper(model, cfg.optim_wrapper))
model.eval()
found = model.test_step(detection_batch(((64, 96), )))[0].pred_instances
print(type(model.backbone).__name__, bool(torch.isfinite(logged['loss'])), len(found))
"""
# Without operators, mmdet.models cannot be imported before addp_mm. DINO calls none on the CPU, so
# an empty module replaces the operators of mmcv.
WITH_OPERATORS = """
from importlib.machinery import ModuleSpec
from types import ModuleType
try:
    import mmcv._ext
except ImportError:
    class Operators(ModuleType):
        def __getattr__(self, name):
            if name.startswith('__'):
                raise AttributeError(name)
    sys.modules['mmcv._ext'] = Operators('mmcv._ext')
    sys.modules['mmcv._ext'].__spec__ = ModuleSpec('mmcv._ext', None)
import mmdet.models
assert 'addp_mm' not in sys.modules
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    'first, custom_imports',
    [('import addp_mm', False), ('import mmdet.registry', True), (WITH_OPERATORS, False), (WITH_OPERATORS, True)],
    ids=['addp_mm', 'mmdet-custom_imports', 'mmdet.models', 'mmdet.models-custom_imports'],
)
def test_both_orders_of_import(first, custom_imports, tmp_path):
    base, model = SWAPS['dino']
    path = write_swap(tmp_path / 'swap.py', f'mmdet::{base}', model, custom_imports)
    printed = run_in_new_process(BUILD_AND_RUN.format(first=first, path=str(path)))
    assert printed.split()[-3:] == ['ADDPViT', 'True', '20']
