# Copyright (c) addp_mm contributors. Apache-2.0.
# Test of the nano tokenizer or the nano VQGAN with features of a network that neither was trained
# with: the VQGAN's perceptual loss uses the shipped ADDP ViT.
# tools/model_converters/efficientnet_lite.py writes the weights file.
_base_ = ['vq-tokenizer_nano-p8_2xb8-fp32-12k_fashion-scenes-64px.py']

imagenet_features = dict(
    type='addp_mm.BackboneFeatures',
    name='efficientnet-lite0',
    mean=[0.5, 0.5, 0.5],
    std=[0.5, 0.5, 0.5],
    input_size=224,
    backbone=dict(
        type='mmpretrain.TIMMBackbone',
        model_name='tf_efficientnet_lite0',
        checkpoint_path='data/efficientnet_lite0.safetensors',
    ),
)
test_evaluator = [*_base_.test_evaluator, dict(type='addp_mm.ReconstructionFID', extractor=imagenet_features)]
