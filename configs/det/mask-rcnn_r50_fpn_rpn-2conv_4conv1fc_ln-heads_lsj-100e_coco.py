# Copyright (c) addp_mm contributors. Apache-2.0.
# mmdet's ResNet-50 with 100 epochs of large-scale jitter. It starts from ImageNet weights, and its
# heads have ViTDet's norm. mmdet's recipe starts from random weights and has synchronised batch
# norm.
_base_ = 'mmdet::strong_baselines/mask-rcnn_r50_fpn_rpn-2conv_4conv1fc_syncbn-all_lsj-100e_coco.py'
custom_imports = dict(imports=['addp_mm'])

head_norm_cfg = dict(_delete_=True, type='addp_mm.LN2d', eps=1e-6)
model = dict(
    backbone=dict(init_cfg=dict(_delete_=True, type='Pretrained', checkpoint='torchvision://resnet50')),
    roi_head=dict(bbox_head=dict(norm_cfg=head_norm_cfg), mask_head=dict(norm_cfg=head_norm_cfg)),
)

default_hooks = dict(random_state=dict(type='addp_mm.RandomStateHook'))
