# Copyright (c) addp_mm contributors. Apache-2.0.
# The encoder of the shipped nano token predictor on the ids of the shipped nano tokenizer. It has 4
# blocks, two fewer than the nano ViT. Ids follow from the predictor's token space: 512 codes, one
# class slot, the mask.
_base_ = './vq-tokenizer_nano-p8_released.py'

token_encoder = dict(
    type='addp_mm.TokenEncoder',
    tokenizer=_base_.tokenizer,
    arch=dict(embed_dims=128, num_layers=4, num_heads=4),
    img_size=64,
    vocab_size=514,
    fake_class_id=512,
    init_cfg=dict(type='addp_mm.Pretrained', checkpoint='addp_mm://token-predictor_nano-p8.safetensors'),
)
