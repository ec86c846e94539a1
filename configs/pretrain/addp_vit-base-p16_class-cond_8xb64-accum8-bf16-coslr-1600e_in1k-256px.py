# Copyright (c) addp_mm contributors. Apache-2.0.
# ADDP with the classes of ImageNet. The recipe is ADDP's, whose released training has no classes;
# the classes, their slots and the drop rate are ours. No weights of such a predictor are released.
# Train it first: token-predictor_vit-base-p16_class-cond_from-ids_….py. The tokenizer is released.
_base_ = './addp_vit-base-p16_8xb64-accum8-bf16-coslr-1600e_in1k-256px.py'

trained = (
    'work_dirs/token-predictor_vit-base-p16_class-cond_from-ids_8xb64-accum8-bf16-coslr-1600e_in1k-256px/epoch_1600.pth'
)
token_space = dict(num_class_slots=1001, fake_class_slot=1000, num_classes=1000)
model = dict(
    predictor=dict(token_space=token_space, init_cfg=dict(checkpoint=trained, prefix='predictor.')),
    neck=dict(token_space=token_space),
    head=dict(token_space=token_space),
    class_drop_rate=0.1,
)
