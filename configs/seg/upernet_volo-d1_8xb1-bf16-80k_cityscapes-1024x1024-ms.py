# Copyright (c) addp_mm contributors. Apache-2.0.
# Only for tools/test.py: the mean over six scales, each with and without a flip.
_base_ = './upernet_volo-d1_8xb1-bf16-80k_cityscapes-1024x1024.py'

model = dict(_delete_=True, type='SegTTAModel', module=_base_.model)
test_dataloader = dict(dataset=dict(pipeline=_base_.tta_pipeline))
train_cfg = train_dataloader = optim_wrapper = param_scheduler = None
val_cfg = val_dataloader = val_evaluator = None
