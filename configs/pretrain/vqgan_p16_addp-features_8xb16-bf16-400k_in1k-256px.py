# Copyright (c) addp_mm contributors. Apache-2.0.
# Perceptual loss on features of ADDP's own encoder, if you cannot use the weights of VGG and LPIPS.
_base_ = ['vqgan_p16_8xb16-bf16-400k_in1k-256px.py']

model = dict(
    perceptual=dict(
        _delete_=True,
        type='addp_mm.PerceptualLoss',
        backbone=dict(
            type='addp_mm.ADDPViT',
            arch='base',
            img_size=256,
            patch_size=16,
            pre_norm=True,
            out_indices=(2, 5, 8, 11),
            out_type='featmap',
            init_cfg=dict(
                type='addp_mm.Pretrained', checkpoint='hf://Changyao/ADDP/addp-vit-base-16.pth', prefix='backbone.'
            ),
        ),
    )
)
