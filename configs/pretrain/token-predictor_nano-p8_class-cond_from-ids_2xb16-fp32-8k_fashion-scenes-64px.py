# Copyright (c) addp_mm contributors. Apache-2.0.
# A predictor for ten garments, on the ids and classes of images of one garment. A tenth of the
# images is trained without its class, for classifier-free guidance.
_base_ = [
    '../_base_/models/vq-tokenizer_nano-p8_released.py',
    '../_base_/models/token-predictor_nano-p8_class-cond.py',
    '../_base_/datasets/fashion_objects_tokens.py',
    '../_base_/schedules/pretrain_nano.py',
]

model = dict(
    type='addp_mm.PredictorPretrain',
    tokenizer=None,
    predictor=_base_.predictor,
    drop_ratio=0.5,
    codes_only=True,
    class_drop_rate=0.1,
)

train_dataloader = dict(batch_size=16, dataset=dict(tokenizer=_base_.tokenizer))
test_dataloader = dict(dataset=dict(tokenizer=_base_.tokenizer))
test_evaluator = dict(type='addp_mm.MaskedTokenAccuracy')
test_cfg = dict()
