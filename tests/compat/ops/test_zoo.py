# Copyright (c) addp_mm contributors. Apache-2.0.
"""Detectors and segmentors of the zoo, at a tiny size, train a step and predict."""

import re
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import torch
from helpers.tiny_detection import detection_batch
from helpers.tiny_stock import CLASSES, build, check_step, predict, read, segmentation_batch
from helpers.watched_operators import DEFORM, NMS, ROI, Uses, operator, operators
from mmengine.logging import MessageHub

pytestmark = pytest.mark.slow


@dataclass(frozen=True)
class Case:
    """What a stock config uses, options of its model, and whether it predicts single images."""

    uses: Uses
    masks: bool = False
    options: dict = field(default_factory=dict)
    narrow: bool = True
    one_image: bool = False


SOFT_NMS = operators('softnms')
NMS_MATCH = operators('nms_match')
MASKED_CONV = operators('masked_im2col_forward', 'masked_col2im_forward')  # in predictions only
SAMPLED = operator('deform_conv', 'DeformConv2d', 'backward_input')  # a constant as its weight
MODULATED = operator('modulated_deform_conv', 'ModulatedDeformConv2d')
CARAFE = operator('carafe', 'CARAFE')
DEFORM_ATTENTION = operator('ms_deform_attn', 'MultiScaleDeformableAttn')
DEFORM_ROI = operator('deform_roi_pool', 'DeformRoIPool')
PSA = operator('psamask', 'PSAMask')
# mmcv computes these with torch on a CPU, or everywhere
POINTS = Uses(nodes=frozenset({'GridSampler2DBackward0'}))
CORNER_POOL = Uses(nodes=frozenset({'CummaxBackward0'}))
ATTENTION = Uses(nodes=frozenset({'SoftmaxBackward0'}))

HOURGLASS = {'backbone.stage_channels': [8] * 6, 'backbone.stage_blocks': [1] * 6, 'backbone.feat_channel': 32}
SABL = {
    f'roi_head.bbox_head.{key}': 32
    for key in (
        'cls_in_channels',
        'reg_in_channels',
        'cls_out_channels',
        'reg_offset_out_channels',
        'reg_cls_out_channels',
    )
}
TRIDENT = {
    'backbone.base_channels': 16,
    'backbone.stem_channels': 16,
    # without pretrained weights, mmdet leaves its own convolution uninitialised
    'backbone.init_cfg': dict(_delete_=True, type='Kaiming', layer=['Conv2d', 'TridentConv']),
    'backbone.norm_eval': False,
    'backbone.norm_cfg.momentum': 1.0,
    'rpn_head.in_channels': 256,
    'roi_head.shared_head.depth': 18,
    'roi_head.bbox_roi_extractor.out_channels': 256,
    'roi_head.bbox_head.in_channels': 512,
    'train_cfg.rcnn.sampler.num': 8,
}
# convolutions with standardised weights, whose outputs grow without the statistics of their images
SWITCHABLE = {
    'backbone.base_channels': 4,
    'backbone.stem_channels': 4,
    'backbone.norm_eval': False,
    'backbone.norm_cfg.momentum': 1.0,
}
SOLO = {
    'mask_head.feat_channels': 32,
    'mask_head.mask_feature_head.feat_channels': 32,
    'mask_head.mask_feature_head.out_channels': 32,
    'test_cfg.mask_thr': 0.0,
    'test_cfg.filter_thr': 0.0,
}
# DINO's decoder encodes boxes with a width that no option sets
DETECTORS = {
    'faster_rcnn/faster-rcnn_r50_fpn_1x_coco.py': Case(NMS | ROI),
    'mask_rcnn/mask-rcnn_r50_fpn_1x_coco.py': Case(NMS | ROI, masks=True),
    'cascade_rcnn/cascade-rcnn_r50_fpn_1x_coco.py': Case(NMS | ROI),
    'cascade_rcnn/cascade-mask-rcnn_r50_fpn_1x_coco.py': Case(NMS | ROI, masks=True),
    'retinanet/retinanet_r50_fpn_1x_coco.py': Case(NMS),
    'fcos/fcos_r50-caffe_fpn_gn-head_1x_coco.py': Case(NMS),
    'atss/atss_r50_fpn_1x_coco.py': Case(NMS),
    'deformable_detr/deformable-detr_r50_16xb2-50e_coco.py': Case(DEFORM_ATTENTION),
    'dino/dino-4scale_r50_8xb2-12e_coco.py': Case(DEFORM_ATTENTION, narrow=False),
    'mask2former/mask2former_r50_8xb2-lsj-50e_coco.py': Case(DEFORM_ATTENTION, masks=True),
    'point_rend/point-rend_r50-caffe_fpn_ms-1x_coco.py': Case(NMS | ROI | POINTS, masks=True),
    'dcn/faster-rcnn_r50-dconv-c3-c5_fpn_1x_coco.py': Case(NMS | ROI | DEFORM),
    'dcnv2/faster-rcnn_r50-mdconv-c3-c5_fpn_1x_coco.py': Case(NMS | ROI | MODULATED),
    'dcn/faster-rcnn_r50_fpn_dpool_1x_coco.py': Case(NMS | DEFORM_ROI),
    'carafe/faster-rcnn_r50_fpn-carafe_1x_coco.py': Case(NMS | ROI | CARAFE),
    'carafe/mask-rcnn_r50_fpn-carafe_1x_coco.py': Case(NMS | ROI | CARAFE, masks=True),
    'dyhead/atss_r50_fpn_dyhead_1x_coco.py': Case(NMS | MODULATED),
    'guided_anchoring/ga-retinanet_r50-caffe_fpn_1x_coco.py': Case(NMS | DEFORM | MASKED_CONV, one_image=True),
    'guided_anchoring/ga-faster-rcnn_r50_fpn_1x_coco.py': Case(NMS | ROI | DEFORM | MASKED_CONV, one_image=True),
    'cascade_rpn/cascade-rpn_faster-rcnn_r50-caffe_fpn_1x_coco.py': Case(NMS | ROI | DEFORM),
    'sabl/sabl-faster-rcnn_r50_fpn_1x_coco.py': Case(NMS | ROI, options=SABL),
    'sabl/sabl-retinanet_r50_fpn_1x_coco.py': Case(NMS),
    'reppoints/reppoints-moment_r50_fpn_1x_coco.py': Case(NMS | DEFORM),
    'foveabox/fovea_r50_fpn_gn-head-align_4xb4-2x_coco.py': Case(NMS | DEFORM),
    'vfnet/vfnet_r50_fpn_1x_coco.py': Case(NMS | DEFORM),
    'tood/tood_r50_fpn_1x_coco.py': Case(NMS | SAMPLED),
    'nas_fcos/nas-fcos_r50-caffe_fpn_nashead-gn-head_4xb4-1x_coco.py': Case(NMS | MODULATED),
    'double_heads/dh-faster-rcnn_r50_fpn_1x_coco.py': Case(NMS | ROI),
    'grid_rcnn/grid-rcnn_r50_fpn_gn-head_1x_coco.py': Case(
        NMS | ROI, options={'roi_head.grid_head.point_feat_channels': 4}
    ),
    'dynamic_rcnn/dynamic-rcnn_r50_fpn_1x_coco.py': Case(NMS | ROI),
    'pisa/mask-rcnn_r50_fpn_pisa_1x_coco.py': Case(NMS | ROI | NMS_MATCH, masks=True),
    'tridentnet/tridentnet_r50-caffe_1x_coco.py': Case(NMS | ROI, options=TRIDENT),
    'detectors/cascade-rcnn_r50-sac_1x_coco.py': Case(NMS | ROI | DEFORM, options=SWITCHABLE),
    'solov2/solov2-light_r50-dcn_fpn_ms-3x_coco.py': Case(MODULATED, masks=True, options=SOLO),
    'centernet/centernet_r18-dcnv2_8xb16-crop512-140e_coco.py': Case(
        MODULATED, options={'neck.num_deconv_filters': (16, 8, 4)}
    ),
    'cornernet/cornernet_hourglass104_8xb6-210e-mstest_coco.py': Case(SOFT_NMS | CORNER_POOL, options=HOURGLASS),
    'centripetalnet/centripetalnet_hourglass104_16xb6-crop511-210e-mstest_coco.py': Case(
        SOFT_NMS | CORNER_POOL | DEFORM, options=HOURGLASS
    ),
}
SEGMENTORS = {
    'upernet/upernet_r50_4xb4-80k_ade20k-512x512.py': Case(Uses()),
    'segformer/segformer_mit-b0_8xb2-160k_ade20k-512x512.py': Case(ATTENTION),
    'segmenter/segmenter_vit-t_mask_8xb1-160k_ade20k-512x512.py': Case(Uses()),
    'mask2former/mask2former_r50_8xb2-160k_ade20k-512x512.py': Case(DEFORM_ATTENTION),
    'point_rend/pointrend_r50_4xb4-160k_ade20k-512x512.py': Case(POINTS),
    'psanet/psanet_r50-d8_4xb4-80k_ade20k-512x512.py': Case(PSA),
    'dnlnet/dnl_r50-d8_4xb4-80k_ade20k-512x512.py': Case(ATTENTION),
    'ccnet/ccnet_r50-d8_4xb4-80k_ade20k-512x512.py': Case(ATTENTION),
    'emanet/emanet_r50-d8_4xb2-80k_cityscapes-512x1024.py': Case(
        Uses(), options={'decode_head.ema_channels': 32, 'decode_head.num_bases': 8}
    ),
}
HALF = (
    'vfnet/vfnet_r50_fpn_1x_coco.py',
    'autoassign/autoassign_r50-caffe_fpn_1x_coco.py',
    'dyhead/atss_r50_fpn_dyhead_1x_coco.py',
    'dcnv2/faster-rcnn_r50-mdconv-c3-c5_fpn_1x_coco.py',
    'carafe/mask-rcnn_r50_fpn-carafe_1x_coco.py',
)


@pytest.fixture(autouse=True)
def first_epoch():
    """TOOD asks for the epoch, which a Runner sets."""
    MessageHub.get_current_instance().update_info('epoch', 0)


def detector_and_data(path):
    case = DETECTORS.get(path) or Case(NMS)
    cfg = read('mmdet', path, case.options, case.narrow)
    data = detection_batch()
    for sample in data['data_samples']:
        sample.set_metainfo(dict(border=[0, 0, 0, 0]))  # of CenterNet's own crop
    return cfg, build(cfg), data


@pytest.mark.parametrize('path', DETECTORS)
def test_detector(watched, path):
    case = DETECTORS[path]
    cfg, model, data = detector_and_data(path)
    check_step(cfg, model, data, watched, case.uses.nodes)
    for result in predict(model, {key: values[:1] for key, values in data.items()} if case.one_image else data):
        found = result.pred_instances
        assert len(found) > 0
        assert found.bboxes.isfinite().all()
        assert found.scores.isfinite().all()
        assert ('masks' in found) == case.masks
        assert found.labels.max() < CLASSES
    assert watched.called == case.uses.operators


@pytest.mark.parametrize('path', HALF)
def test_detector_in_bfloat16(mmcv_ops, path):
    cfg, model, data = detector_and_data(path)
    with torch.autocast('cpu', torch.bfloat16):
        check_step(cfg, model, data)
        for result in predict(model, data):
            assert len(result.pred_instances) > 0
            assert result.pred_instances.scores.isfinite().all()


def test_soft_nms_in_a_detector(watched):
    _, model, data = detector_and_data('faster_rcnn/faster-rcnn_r50_fpn_1x_coco.py')
    model.roi_head.test_cfg.nms = dict(type='soft_nms', iou_threshold=0.5, min_score=0.05)
    assert all(len(result.pred_instances) for result in predict(model, data))
    assert 'softnms' in watched.called


@pytest.mark.parametrize('path', SEGMENTORS)
def test_segmentor(watched, path):
    case = SEGMENTORS[path]
    cfg = read('mmseg', path, case.options)
    model, data = build(cfg), segmentation_batch()
    check_step(cfg, model, data, watched, case.uses.nodes)
    for result in predict(model, data):
        assert result.pred_sem_seg.data.shape == (1, 64, 64)
        assert result.pred_sem_seg.data.max() < CLASSES
    assert watched.called == case.uses.operators


def test_the_docs_list_every_model():
    doc = (Path(__file__).parents[3] / 'docs/compat.md').read_text()
    section = doc.split('## Models that were run')[1].split('\n## ')[0]
    listed = re.findall(r'^\| `(mm\w+::[^`]+)` \|', section, re.M)
    tested = dict(mmdet=DETECTORS, mmseg=SEGMENTORS)
    assert sorted(listed) == sorted(f'{package}::{path}' for package, paths in tested.items() for path in paths)
