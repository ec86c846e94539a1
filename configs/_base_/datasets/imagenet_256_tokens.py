# Copyright (c) addp_mm contributors. Apache-2.0.
# Token ids of ImageNet at 256 px. One view of all images needs 0.65 GB; training samples one view
# of each image per epoch. To write them: python tools/dataset_converters/tokenize_images.py \
# addp_mm::_base_/models/vq-tokenizer_in1k_released.py data/imagenet/train data/imagenet/tokens \
#   --img-size 256 --views 16 --interpolation bilinear
train_dataloader = dict(
    batch_size=64,
    num_workers=2,
    persistent_workers=True,
    pin_memory=True,
    drop_last=True,
    sampler=dict(type='addp_mm.ResumableEpochSampler', shuffle=True),
    collate_fn=dict(type='default_collate'),
    dataset=dict(
        type='addp_mm.TokenIds',
        data_root='data/imagenet/tokens',
        views=dict(image_size=256, augmentation='crop', crop_scale=(0.2, 1.0)),
    ),
)
