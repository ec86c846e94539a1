# Copyright (c) addp_mm contributors. Apache-2.0.
# A quarter of the schedule: each of the 25 epochs uses every image once instead of four times.
_base_ = './mask-rcnn_r50_fpn_rpn-2conv_4conv1fc_ln-heads_lsj-100e_coco.py'

train_dataloader = dict(dataset=dict(times=1))
