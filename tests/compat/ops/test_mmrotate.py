# Copyright (c) addp_mm contributors. Apache-2.0.
"""Detectors of rotated boxes of mmrotate, at a tiny size, train a step and predict.

Needs mmrotate: the extra rotated, or rotated-onedl with the forks.
"""

import numpy as np
import pytest
import torch
from helpers.tiny_stock import CLASSES, build, check_step, predict, read
from helpers.watched_operators import DEFORM, NMS, ROI, Uses, operator, operators

pytest.importorskip('mmrotate', reason="needs mmrotate: pip install -e '.[rotated]'")
pytestmark = pytest.mark.slow

OVERLAPS = operators('box_iou_rotated')
ROTATED_NMS = operators('nms_rotated')
ROTATED_ROI = operator('roi_align_rotated', 'RoIAlignRotated')
IOU_LOSS = operators('diff_iou_rotated_sort_vertices_forward')
FILTERS = operator('active_rotated_filter', 'ActiveRotatedFilter')
ALIGNED = operator('rotated_feature_align', 'RotatedFeatureAlign')
POINT_SETS = operators('convex_iou', 'convex_giou', 'min_area_polygons') | Uses(
    nodes=frozenset({'ConvexGIoULossFuctionBackward'})  # mmrotate's spelling
)
DETECTORS = {
    'oriented_rcnn/oriented-rcnn-le90_r50_fpn_1x_dota.py': NMS | ROTATED_NMS | OVERLAPS | ROTATED_ROI,
    'rotated_faster_rcnn/rotated-faster-rcnn-le90_r50_fpn_1x_dota.py': NMS | ROTATED_NMS | ROI,
    'roi_trans/roi-trans-le90_r50_fpn_1x_dota.py': NMS | ROTATED_NMS | OVERLAPS | ROI | ROTATED_ROI,
    'gliding_vertex/gliding-vertex-qbox_r50_fpn_1x_dota.py': NMS | operators('nms_quadri') | ROI,
    'gliding_vertex/gliding-vertex-rbox_r50_fpn_1x_dota.py': NMS | ROTATED_NMS | ROI,
    'rotated_retinanet/rotated-retinanet-rbox-le90_r50_fpn_1x_dota.py': ROTATED_NMS | OVERLAPS,
    'rotated_fcos/rotated-fcos-le90_r50_fpn_1x_dota.py': ROTATED_NMS | IOU_LOSS,
    'rotated_atss/rotated-atss-le90_r50_fpn_1x_dota.py': ROTATED_NMS | OVERLAPS | IOU_LOSS,
    's2anet/s2anet-le135_r50_fpn_1x_dota.py': ROTATED_NMS | OVERLAPS | DEFORM | FILTERS,
    'r3det/r3det-oc_r50_fpn_1x_dota.py': ROTATED_NMS | OVERLAPS | ALIGNED,
    'cfa/cfa-qbox_r50_fpn_1x_dota.py': ROTATED_NMS | DEFORM | POINT_SETS,
    'rotated_reppoints/rotated-reppoints-qbox_r50_fpn_1x_dota.py': ROTATED_NMS | DEFORM | POINT_SETS,
    'oriented_reppoints/oriented-reppoints-qbox_r50_fpn_1x_dota.py': (
        ROTATED_NMS | DEFORM | POINT_SETS | operators('chamfer_distance_forward')
    ),
}
UNUSED = {'oriented_reppoints/oriented-reppoints-qbox_r50_fpn_1x_dota.py': ('bbox_head.moment_transfer',)}


def rotated_batch(box_type):
    """Two images with two objects each, as the pipeline of a config gives them."""
    from mmdet.structures import DetDataSample
    from mmengine.structures import InstanceData
    from mmrotate.structures import RotatedBoxes

    rng = np.random.default_rng(0)
    inputs, samples = [], []
    for index, (height, width) in enumerate(((64, 96), (96, 64))):
        shape = dict(img_shape=(height, width), ori_shape=(height, width), scale_factor=(1.0, 1.0))
        sample = DetDataSample(metainfo=dict(shape, img_id=index, img_path=f'{index}.jpg'))
        boxes = RotatedBoxes(torch.tensor([[24.0, 28, 30, 14, 0.5], [40.0, 40, 28, 12, -0.8]]))
        for name, found in (('gt_instances', boxes), ('ignored_instances', boxes[:0])):
            labels = torch.arange(len(found))
            setattr(sample, name, InstanceData(bboxes=found.convert_to(box_type), labels=labels))
        inputs.append(torch.from_numpy(rng.integers(0, 255, (3, height, width), dtype=np.uint8)))
        samples.append(sample)
    return dict(inputs=inputs, data_samples=samples)


@pytest.mark.parametrize('path', DETECTORS)
def test_rotated_detector(watched, path):
    uses = DETECTORS[path]
    cfg = read('mmrotate', path)
    types = [step['box_type_mapping']['gt_bboxes'] for step in cfg.train_pipeline if step.type == 'ConvertBoxType']
    model, batch = build(cfg), rotated_batch(types[0] if types else 'qbox')
    check_step(cfg, model, batch, watched, uses.nodes, UNUSED.get(path, ()))
    for result in predict(model, batch):
        found = result.pred_instances
        assert len(found) > 0
        assert torch.as_tensor(getattr(found.bboxes, 'tensor', found.bboxes)).isfinite().all()
        assert found.scores.isfinite().all()
        assert found.labels.max() < CLASSES
    assert watched.called == uses.operators
