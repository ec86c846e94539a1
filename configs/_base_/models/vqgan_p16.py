# Copyright (c) addp_mm contributors. Apache-2.0.
# 256 px -> 16 x 16 tokens of 1024 codes: the layout of the released tokenizers of MaskGIT, MAGE and
# ADDP.
model = dict(
    type='addp_mm.VQGANPretrain',
    tokenizer=dict(type='addp_mm.VQTokenizer'),
    data_preprocessor=dict(type='SelfSupDataPreprocessor', mean=[0, 0, 0], std=[255, 255, 255], to_rgb=True),
    # pip install lpips: the package contains the weights of the channels
    perceptual=dict(
        type='addp_mm.PerceptualLoss',
        backbone=dict(
            type='addp_mm.VGG16Features',
            init_cfg=dict(
                type='addp_mm.Pretrained', checkpoint='https://download.pytorch.org/models/vgg16-397923af.pth'
            ),
        ),
        channel_weights='lpips',
    ),
    discriminator=dict(type='addp_mm.PatchDiscriminator'),
    adversarial_weight=0.5,
)
