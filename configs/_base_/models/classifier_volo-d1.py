# Copyright (c) addp_mm contributors. Apache-2.0.
# VOLO d1 as a classifier: class attention, auxiliary head on the tokens, mix-token. Without label
# maps the label of the image is the target of every token.
model = dict(
    type='ImageClassifier',
    backbone=dict(type='addp_mm.VOLO', arch='d1', img_size=224, out_type='raw', drop_path_rate=0.1, mix_token=True),
    head=dict(
        type='addp_mm.VOLOHead',
        num_classes=1000,
        in_channels=384,
        loss=dict(type='addp_mm.TokenLabelLoss', dense_weight=0.5, with_ground_truth=False),
    ),
)
