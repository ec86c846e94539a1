# Copyright (c) addp_mm contributors. Apache-2.0.
# ADDP for ten garments, on images of one garment with their classes. The predictor is that of
# token-predictor_nano-p8_class-cond_from-ids_2xb16-fp32-8k_fashion-scenes-64px.py.
_base_ = './addp_vit-nano-p8_2xb16-fp32-4k_fashion-scenes-64px.py'

token_space = dict(codebook_size=512, num_class_slots=11, fake_class_slot=10, num_classes=10)
weights = 'addp_mm://token-predictor_nano-p8_class-cond.safetensors'
model = dict(
    predictor=dict(token_space=token_space, init_cfg=dict(checkpoint=weights)),
    neck=dict(token_space=token_space),
    head=dict(token_space=token_space),
    class_drop_rate=0.1,
)

metainfo = dict(
    classes=['ankle-boot', 'bag', 'coat', 'dress', 'pullover', 'sandal', 'shirt', 'sneaker', 't-shirt', 'trouser']
)
train_dataloader = dict(dataset=dict(data_prefix='objects/train', with_label=True, metainfo=metainfo))
