# Copyright (c) addp_mm contributors. Apache-2.0.
# Mask R-CNN for scenes of 64 px with objects of 11 to 54 px. It has three levels of stride 4, 8 and
# 16, and anchors of 16, 32 and 64 px. Regions from 14 px are assigned to levels (mmdet: 56 px).
# Heads have a quarter of the channels.
norm_cfg = dict(type='addp_mm.LN2d', eps=1e-6)
bbox_coder = dict(type='DeltaXYWHBBoxCoder', target_means=[0.0, 0.0, 0.0, 0.0])
nms = dict(type='nms', iou_threshold=0.7)
roi_extractor = dict(
    type='SingleRoIExtractor',
    roi_layer=dict(type='RoIAlign', output_size=7, sampling_ratio=0),
    out_channels=64,
    featmap_strides=[4, 8, 16],
    finest_scale=14,
)
model = dict(
    type='MaskRCNN',
    data_preprocessor=dict(
        type='DetDataPreprocessor',
        mean=[123.675, 116.28, 103.53],
        std=[58.395, 57.12, 57.375],
        bgr_to_rgb=True,
        pad_mask=True,
        pad_size_divisor=16,
    ),
    backbone=dict(
        type='addp_mm.ADDPViT',
        arch='nano',
        img_size=64,
        patch_size=8,
        out_type='featmap',
        pre_norm=True,
        init_cfg=dict(type='addp_mm.Pretrained', checkpoint='addp_mm://addp_nano-p8.safetensors', prefix='backbone.'),
    ),
    neck=dict(type='addp_mm.SimpleFPN', in_channels=128, out_channels=64, scales=(2, 1, 0.5)),
    rpn_head=dict(
        type='RPNHead',
        in_channels=64,
        feat_channels=64,
        anchor_generator=dict(type='AnchorGenerator', scales=[4], ratios=[0.5, 1.0, 2.0], strides=[4, 8, 16]),
        bbox_coder=dict(target_stds=[1.0, 1.0, 1.0, 1.0], **bbox_coder),
        loss_cls=dict(type='CrossEntropyLoss', use_sigmoid=True, loss_weight=1.0),
        loss_bbox=dict(type='L1Loss', loss_weight=1.0),
    ),
    roi_head=dict(
        type='StandardRoIHead',
        bbox_roi_extractor=roi_extractor,
        bbox_head=dict(
            type='Shared2FCBBoxHead',
            in_channels=64,
            fc_out_channels=128,
            roi_feat_size=7,
            num_classes=10,
            bbox_coder=dict(target_stds=[0.1, 0.1, 0.2, 0.2], **bbox_coder),
            reg_class_agnostic=True,
            loss_cls=dict(type='CrossEntropyLoss', use_sigmoid=False, loss_weight=1.0),
            loss_bbox=dict(type='L1Loss', loss_weight=1.0),
        ),
        mask_roi_extractor=roi_extractor,
        mask_head=dict(
            type='FCNMaskHead',
            num_convs=2,
            in_channels=64,
            conv_out_channels=64,
            num_classes=10,
            norm_cfg=norm_cfg,
            class_agnostic=True,
            loss_mask=dict(type='CrossEntropyLoss', use_mask=True, loss_weight=1.0),
        ),
    ),
    train_cfg=dict(
        rpn=dict(
            assigner=dict(
                type='MaxIoUAssigner',
                pos_iou_thr=0.7,
                neg_iou_thr=0.3,
                min_pos_iou=0.3,
                match_low_quality=True,
                ignore_iof_thr=-1,
            ),
            sampler=dict(type='RandomSampler', num=64, pos_fraction=0.5, neg_pos_ub=-1, add_gt_as_proposals=False),
            allowed_border=-1,
            pos_weight=-1,
            debug=False,
        ),
        rpn_proposal=dict(nms_pre=200, max_per_img=100, nms=nms, min_bbox_size=0),
        rcnn=dict(
            assigner=dict(
                type='MaxIoUAssigner',
                pos_iou_thr=0.5,
                neg_iou_thr=0.5,
                min_pos_iou=0.5,
                match_low_quality=True,
                ignore_iof_thr=-1,
            ),
            sampler=dict(type='RandomSampler', num=32, pos_fraction=0.5, neg_pos_ub=-1, add_gt_as_proposals=True),
            mask_size=14,
            pos_weight=-1,
            debug=False,
        ),
    ),
    test_cfg=dict(
        rpn=dict(nms_pre=200, max_per_img=50, nms=nms, min_bbox_size=0),
        rcnn=dict(score_thr=0.05, nms=dict(type='nms', iou_threshold=0.5), max_per_img=20, mask_thr_binary=0.5),
    ),
)
