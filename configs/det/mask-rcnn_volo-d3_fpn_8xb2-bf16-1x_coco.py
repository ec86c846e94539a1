# Copyright (c) addp_mm contributors. Apache-2.0.
_base_ = './mask-rcnn_volo-d1_fpn_8xb2-bf16-1x_coco.py'

model = dict(
    backbone=dict(
        arch='d3',
        drop_path_rate=0.5,
        init_cfg=dict(checkpoint='https://github.com/sail-sg/volo/releases/download/volo_1/d3_224_85.4.pth.tar'),
    ),
    neck=[
        dict(_base_.model.neck[0], embed_dims=[256, 512, 512, 512]),
        dict(_base_.model.neck[1], in_channels=[256, 512, 512, 512]),
    ],
)
