# Copyright (c) addp_mm contributors. Apache-2.0.
"""Configs of mmdet and mmseg whose backbone was replaced by hand, small enough for a test."""

from __future__ import annotations

from pathlib import Path

import torch
from mmengine.config import Config
from mmengine.structures import PixelData

from addp_mm.analysis.batches import build_model, scope_of

WIDTH = 32
ARCH = dict(embed_dims=WIDTH, num_layers=4, num_heads=2)
IMPORTS = {False: '', True: "custom_imports = dict(imports=['addp_mm'], allow_failed_imports=False)\n"}
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
DETECTORS = {
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

FOUR_MAPS = """
model = dict(
    backbone=dict(
        _delete_=True, type='addp_mm.ADDPViT', arch=ARCH, img_size=512, out_indices=(0, 1, 2, 3), out_type='featmap',
        final_norm=False),
"""
LAST_MAP = """
model = dict(
    backbone=dict(
        _delete_=True, type='addp_mm.ADDPViT', arch=ARCH, img_size=512, out_indices=-1, out_type='featmap'),
"""
PYRAMID = FOUR_MAPS + "    neck=dict(type='addp_mm.FourScaleNeck', embed_dims=WIDTH),\n"
AUXILIARY = '    auxiliary_head=dict(in_channels=WIDTH),\n    pretrained=None)\n'
ONE_HEAD = FOUR_MAPS + '    decode_head=dict(in_channels=WIDTH),\n' + AUXILIARY
# A config of mmseg, and the text that replaces parts of it. DeepLabV3+ uses only two maps: a neck
# with more of them would have parameters without a gradient.
SEGMENTORS = {
    'upernet': (
        'upernet/upernet_r50_4xb4-160k_ade20k-512x512.py',
        PYRAMID + '    decode_head=dict(in_channels=[WIDTH] * 4),\n' + AUXILIARY,
    ),
    'fcn': ('fcn/fcn_r50-d8_4xb4-80k_ade20k-512x512.py', ONE_HEAD),
    'pspnet': ('pspnet/pspnet_r50-d8_4xb4-80k_ade20k-512x512.py', ONE_HEAD),
    'deeplabv3plus': (
        'deeplabv3plus/deeplabv3plus_r50-d8_4xb4-80k_ade20k-512x512.py',
        LAST_MAP
        + """
    neck=dict(type='addp_mm.SimpleFPN', in_channels=WIDTH, out_channels=256, scales=(4, 1)),
    decode_head=dict(in_channels=256, in_index=1),
    auxiliary_head=dict(in_channels=256, in_index=1),
    pretrained=None)
""",
    ),
    'segformer': (
        'segformer/segformer_mit-b0_8xb2-160k_ade20k-512x512.py',
        PYRAMID + '    decode_head=dict(in_channels=[WIDTH] * 4))\n',
    ),
    'mask2former': (
        'mask2former/mask2former_r50_8xb2-160k_ade20k-512x512.py',
        PYRAMID + '    decode_head=dict(in_channels=[WIDTH] * 4))\n',
    ),
    'setr': (
        'setr/setr_vit-l_pup_8xb2-160k_ade20k-512x512.py',
        FOUR_MAPS + '    decode_head=dict(in_channels=WIDTH),\n'
        '    auxiliary_head=[dict(head, in_channels=WIDTH) for head in _base_.model.auxiliary_head])\n',
    ),
    'segmenter': (
        'segmenter/segmenter_vit-b_mask_8xb1-160k_ade20k-512x512.py',
        LAST_MAP + '    decode_head=dict(in_channels=WIDTH),\n    pretrained=None)\n',
    ),
}


def write_swap(path: Path, base: str, model: str, custom_imports: bool = False) -> Path:
    """Write a config that inherits ``base`` (``'mmseg::…'``) and replaces parts of it.

    Args:
        path: File to write.
        base: Name of the config in its package.
        model: Source text with the replacements. ARCH and WIDTH in it become those of a backbone
            that is small enough for a test.
        custom_imports: Whether the config imports addp_mm. Defaults to False.
    """
    text = model.replace('ARCH', repr(ARCH)).replace('WIDTH', str(WIDTH))
    path.write_text(f'_base_ = {base!r}\n{IMPORTS[custom_imports]}{text}')
    return path


def read_detector(folder: Path, name: str) -> Config:
    base, model = DETECTORS[name]
    cfg = Config.fromfile(write_swap(folder / f'{name}.py', f'mmdet::{base}', model))
    cfg.model.data_preprocessor.batch_augments = None  # Mask2Former pads all images to 1024 px
    for key, few in FEW.items():
        set_everywhere(cfg.model, key, few)
    return cfg


# As many proposals and queries as images of 90 px need.
FEW = {'num': 32, 'max_per_img': 30, 'num_queries': 30}


def set_everywhere(node, key: str, value: object) -> None:
    if isinstance(node, dict):
        for name, child in node.items():
            if name == key:
                node[name] = value
            set_everywhere(child, key, value)
    elif isinstance(node, (list, tuple)):
        for child in node:
            set_everywhere(child, key, value)


def read_segmentor(folder: Path, name: str) -> Config:
    base, model = SEGMENTORS[name]
    cfg = Config.fromfile(write_swap(folder / f'{name}.py', f'mmseg::{base}', model))
    # the step uses the images of the test, not crops of 512 px; a Runner turns SyncBN into BN
    cfg.model.data_preprocessor.size = None
    cfg.model.data_preprocessor.size_divisor = 16
    return cfg


def segmentation_batch(size=(96, 64)) -> dict:
    from mmseg.structures import SegDataSample

    generator = torch.Generator().manual_seed(0)
    samples = []
    for _ in range(2):
        blocks = torch.randint(0, 150, (1, size[0] // 16, size[1] // 16), generator=generator)
        labels = blocks.repeat_interleave(16, 1).repeat_interleave(16, 2)
        samples.append(
            SegDataSample(
                gt_sem_seg=PixelData(data=labels), metainfo=dict(img_shape=size, ori_shape=size, pad_shape=size)
            )
        )
    images = [torch.randint(0, 256, (3, *size), generator=generator, dtype=torch.uint8) for _ in samples]
    return dict(inputs=images, data_samples=samples)


def build(cfg: Config):
    """Build the model of a config with random weights, as its initialisers give them."""
    with scope_of(cfg):
        model = build_model(cfg)
        model.init_weights()
    return model
