# Copyright (c) addp_mm contributors. Apache-2.0.
_base_ = [
    '../_base_/models/vq-tokenizer_nano-p8.py',
    '../_base_/models/token-predictor_nano-p8.py',
    '../_base_/datasets/fashion_scenes_pretrain.py',
    '../_base_/schedules/pretrain_nano.py',
]

model = dict(
    type='addp_mm.PredictorPretrain',
    tokenizer=dict(
        **_base_.tokenizer,
        init_cfg=dict(type='addp_mm.Pretrained', checkpoint='addp_mm://vq-tokenizer_nano-p8.safetensors', strict=True),
    ),
    predictor=_base_.predictor,
    data_preprocessor=dict(type='SelfSupDataPreprocessor', mean=[0, 0, 0], std=[255, 255, 255], to_rgb=True),
)

train_dataloader = dict(batch_size=16)
val_evaluator = dict(type='addp_mm.MaskedTokenAccuracy')

train_cfg = dict(val_interval=2000)
val_cfg = dict()
test_dataloader = _base_.val_dataloader
test_evaluator = val_evaluator
test_cfg = dict()
