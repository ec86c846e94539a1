# Copyright (c) addp_mm contributors. Apache-2.0.
# The nano tokenizer with the weights that the package ships.
_base_ = './vq-tokenizer_nano-p8.py'
tokenizer = dict(
    init_cfg=dict(type='addp_mm.Pretrained', checkpoint='addp_mm://vq-tokenizer_nano-p8.safetensors', strict=True)
)
