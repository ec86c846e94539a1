# Copyright (c) addp_mm contributors. Apache-2.0.
"""Detectors and segmentors of the zoo, at a tiny size, train and predict."""

from pathlib import Path

import numpy as np
import pytest
import torch

pytestmark = pytest.mark.slow

CLASSES = 3
CHANNELS = {64: 4, 128: 16, 256: 32, 512: 32, 1024: 64, 2048: 64}
STAGES = {256: 16, 512: 32, 1024: 64, 2048: 128}  # of a ResNet-50 with 4 base channels
WIDTH_KEYS = {
    'in_channels',
    'out_channels',
    'output_channels',
    'channels',
    'feat_channels',
    'conv_out_channels',
    'fc_out_channels',
    'fc_channels',
    'embed_dims',
    'feedforward_channels',
    'num_feats',
}
FIXED = {
    'num_classes': CLASSES,
    'num_things_classes': CLASSES,
    'num_queries': 20,
    'max_per_img': 20,
    'max_per_image': 20,
    'num_dn_queries': 6,
    'num_points': 64,
    'score_thr': 0.0,
    'subdivision_num_points': 32,
    'batch_augments': None,
    'pretrained': None,
    'size': (64, 64),
}
DEEP = (6, 9)  # layers of the transformers


def shrink(node, channels):
    """Reduce a model config of any layout to a small size."""
    if isinstance(node, (list, tuple)):
        for item in node:
            shrink(item, channels)
    if not isinstance(node, dict):
        return
    kind = node.get('type')
    if kind in ('ResNet', 'ResNetV1c'):
        node.update(base_channels=4, stem_channels=4)
    if kind in ('DeformableDETRHead', 'DINOHead'):
        node['embed_dims'] = channels.get(256, 256)
    if kind == 'SyncBN':
        node['type'] = 'BN'
    for key, value in list(node.items()):
        if key == 'init_cfg' and isinstance(value, dict) and value.get('type') == 'Pretrained':
            node[key] = None
        elif key in FIXED:
            node[key] = FIXED[key] if key != 'num_points' else min(value, FIXED[key])
        elif key == 'class_weight' and isinstance(value, list):
            node[key] = [1.0] * CLASSES + [0.1]
        elif key == 'num_layers' and value in DEEP:
            node[key] = 2
        elif key in WIDTH_KEYS:
            node[key] = width(key, value, kind, channels)
        else:
            shrink(value, channels)


def width(key, value, kind, channels):
    if isinstance(value, (list, tuple)):
        table = channels if set(value) == {256} else STAGES  # outputs of a neck, or of the backbone
        return [table.get(item, item) for item in value] if set(value) <= set(STAGES) else value
    if key == 'in_channels' and kind in ('FCNHead', 'PSAHead'):
        return STAGES.get(value, value)
    return channels.get(value, value)


def build(package, path):
    from mmengine.config import Config
    from mmengine.registry import MODELS, init_default_scope

    config = Config.fromfile(Path(package.__file__).parent / '.mim' / 'configs' / path)
    init_default_scope(package.__name__)
    # DINO's decoder encodes boxes with a width that no option sets
    shrink(config.model, {} if config.model.type == 'DINO' else CHANNELS)
    torch.manual_seed(0)
    model = MODELS.build(config.model)
    model.init_weights()  # level embeddings are not initialised
    return model


def check_training(model, data):
    data = model.data_preprocessor(data, True)
    total, logged = model.parse_losses(model.forward(**data, mode='loss'))
    total.backward()
    assert total.isfinite()
    assert logged
    grads = [p.grad for p in model.parameters() if p.grad is not None]
    assert grads
    assert all(grad.isfinite().all() for grad in grads)


def predict(model, data):
    model.eval()
    with torch.no_grad():
        return model.forward(**model.data_preprocessor(data, False), mode='predict')


def detection_data():
    from mmdet.structures import DetDataSample
    from mmdet.structures.mask import BitmapMasks
    from mmengine.structures import InstanceData

    rng = np.random.default_rng(0)
    inputs, samples = [], []
    for height, size in ((64, 96), (96, 64)):
        masks = np.zeros((2, height, size), dtype=np.uint8)
        masks[0, 8:40, 4:36], masks[1, 20:60, 30:62] = 1, 1
        boxes = torch.tensor([[4.0, 8.0, 36.0, 40.0], [30.0, 20.0, 62.0, 60.0]])
        sample = DetDataSample(
            metainfo=dict(
                img_shape=(height, size),
                ori_shape=(height, size),
                scale_factor=(1.0, 1.0),
                batch_input_shape=(96, 96),
                img_id=0,
            )
        )
        sample.gt_instances = InstanceData(
            bboxes=boxes, labels=torch.tensor([0, 2]), masks=BitmapMasks(masks, height, size)
        )
        sample.ignored_instances = InstanceData(bboxes=torch.zeros(0, 4), labels=torch.zeros(0, dtype=torch.long))
        inputs.append(torch.from_numpy(rng.integers(0, 255, (3, height, size), dtype=np.uint8)))
        samples.append(sample)
    return dict(inputs=inputs, data_samples=samples)


DETECTORS = {
    'faster_rcnn/faster-rcnn_r50_fpn_1x_coco.py': False,
    'mask_rcnn/mask-rcnn_r50_fpn_1x_coco.py': True,
    'cascade_rcnn/cascade-rcnn_r50_fpn_1x_coco.py': False,
    'cascade_rcnn/cascade-mask-rcnn_r50_fpn_1x_coco.py': True,
    'retinanet/retinanet_r50_fpn_1x_coco.py': False,
    'fcos/fcos_r50-caffe_fpn_gn-head_1x_coco.py': False,
    'atss/atss_r50_fpn_1x_coco.py': False,
    'deformable_detr/deformable-detr_r50_16xb2-50e_coco.py': False,
    'dino/dino-4scale_r50_8xb2-12e_coco.py': False,
    'mask2former/mask2former_r50_8xb2-lsj-50e_coco.py': True,
    'point_rend/point-rend_r50-caffe_fpn_ms-1x_coco.py': True,
    'dcn/faster-rcnn_r50-dconv-c3-c5_fpn_1x_coco.py': False,
    'dcnv2/faster-rcnn_r50-mdconv-c3-c5_fpn_1x_coco.py': False,
    'dcn/faster-rcnn_r50_fpn_dpool_1x_coco.py': False,
    'carafe/mask-rcnn_r50_fpn-carafe_1x_coco.py': True,
}


@pytest.mark.parametrize('path', DETECTORS)
def test_detector(mmcv_ops, path):
    import mmdet
    import mmdet.models

    model = build(mmdet, path)
    check_training(model, detection_data())
    for result in predict(model, detection_data()):
        found = result.pred_instances
        assert len(found) > 0
        assert found.bboxes.isfinite().all()
        assert found.scores.isfinite().all()
        assert ('masks' in found) == DETECTORS[path]
        assert found.labels.max() < CLASSES


@pytest.mark.parametrize(
    'path',
    [
        'vfnet/vfnet_r50_fpn_1x_coco.py',
        'autoassign/autoassign_r50-caffe_fpn_1x_coco.py',
        'dyhead/atss_r50_fpn_dyhead_1x_coco.py',
        'dcnv2/faster-rcnn_r50-mdconv-c3-c5_fpn_1x_coco.py',
        'carafe/mask-rcnn_r50_fpn-carafe_1x_coco.py',
    ],
)
def test_detector_in_bfloat16(mmcv_ops, path):
    import mmdet
    import mmdet.models

    model = build(mmdet, path)
    with torch.autocast('cpu', torch.bfloat16):
        check_training(model, detection_data())
        for result in predict(model, detection_data()):
            assert len(result.pred_instances) > 0
            assert result.pred_instances.scores.isfinite().all()


def test_soft_nms_in_a_detector(mmcv_ops):
    import mmdet
    import mmdet.models

    model = build(mmdet, 'faster_rcnn/faster-rcnn_r50_fpn_1x_coco.py')
    model.roi_head.test_cfg.nms = dict(type='soft_nms', iou_threshold=0.5, min_score=0.05)
    assert all(len(result.pred_instances) for result in predict(model, detection_data()))


def segmentation_data():
    from mmengine.structures import PixelData
    from mmseg.structures import SegDataSample

    generator = torch.Generator().manual_seed(0)
    samples = []
    for _ in range(2):
        sample = SegDataSample(metainfo=dict(img_shape=(64, 64), ori_shape=(64, 64), pad_shape=(64, 64)))
        sample.gt_sem_seg = PixelData(data=torch.randint(CLASSES, (1, 64, 64), generator=generator))
        samples.append(sample)
    images = [torch.randint(255, (3, 64, 64), generator=generator, dtype=torch.uint8) for _ in samples]
    return dict(inputs=images, data_samples=samples)


SEGMENTORS = [
    'upernet/upernet_r50_4xb4-80k_ade20k-512x512.py',
    'segformer/segformer_mit-b0_8xb2-160k_ade20k-512x512.py',
    'segmenter/segmenter_vit-t_mask_8xb1-160k_ade20k-512x512.py',
    'mask2former/mask2former_r50_8xb2-160k_ade20k-512x512.py',
    'point_rend/pointrend_r50_4xb4-160k_ade20k-512x512.py',
    'psanet/psanet_r50-d8_4xb4-80k_ade20k-512x512.py',
]


@pytest.mark.parametrize('path', SEGMENTORS)
def test_segmentor(mmcv_ops, path):
    import mmseg
    import mmseg.models

    model = build(mmseg, path)
    check_training(model, segmentation_data())
    for result in predict(model, segmentation_data()):
        assert result.pred_sem_seg.data.shape == (1, 64, 64)
        assert result.pred_sem_seg.data.max() < CLASSES
