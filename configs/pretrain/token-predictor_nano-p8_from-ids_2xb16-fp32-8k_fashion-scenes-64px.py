# Copyright (c) addp_mm contributors. Apache-2.0.
# MAGE's training (arXiv 2211.09117) on stored ids: the encoder drops half of the tokens, the loss
# is over the codes.
_base_ = [
    '../_base_/models/vq-tokenizer_nano-p8_released.py',
    '../_base_/models/token-predictor_nano-p8.py',
    '../_base_/datasets/fashion_scenes_tokens.py',
    '../_base_/schedules/pretrain_nano.py',
]

model = dict(
    type='addp_mm.PredictorPretrain', tokenizer=None, predictor=_base_.predictor, drop_ratio=0.5, codes_only=True
)

train_dataloader = dict(batch_size=16, dataset=dict(tokenizer=_base_.tokenizer))
test_dataloader = dict(dataset=dict(tokenizer=_base_.tokenizer))
test_evaluator = dict(type='addp_mm.MaskedTokenAccuracy')
test_cfg = dict()
