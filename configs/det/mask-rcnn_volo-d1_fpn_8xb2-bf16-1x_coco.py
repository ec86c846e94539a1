# Copyright (c) addp_mm contributors. Apache-2.0.
# The schedule of the ViTs without layer decay. VOLO's authors published no detectors.
_base_ = [
    '../_base_/models/mask-rcnn_volo-d1_fpn.py',
    'mmdet::_base_/datasets/coco_instance.py',
    '../_base_/schedules/coco_vit_1x.py',
]

optim_wrapper = dict(paramwise_cfg=dict(layer_decay_rate=1.0, embed_decay_mult=0.0))
