# Copyright (c) addp_mm contributors. Apache-2.0.
# Token ids of FashionScenes from the shipped tokenizer, for each scene and its mirror image. To
# write them: python tools/dataset_converters/tokenize_images.py \
#   addp_mm::_base_/models/vq-tokenizer_nano-p8_released.py \
#   data/fashion_scenes/scenes/train data/fashion_scenes/tokens --img-size 64 --augment flip
train_dataloader = dict(
    batch_size=64,
    num_workers=1,
    persistent_workers=True,
    drop_last=True,
    sampler=dict(type='addp_mm.ResumableInfiniteSampler', shuffle=True),
    collate_fn=dict(type='default_collate'),
    dataset=dict(
        type='addp_mm.TokenIds',
        data_root='data/fashion_scenes/tokens',
        views=dict(image_size=64, augmentation='flip', count=2),
    ),
)

# Held-out scenes for testing: python tools/dataset_converters/tokenize_images.py \
#   addp_mm::_base_/models/vq-tokenizer_nano-p8_released.py \
#   data/fashion_scenes/scenes/val data/fashion_scenes/tokens_val --img-size 64 --augment none
test_dataloader = dict(
    batch_size=64,
    num_workers=1,
    persistent_workers=True,
    sampler=dict(type='DefaultSampler', shuffle=False),
    collate_fn=dict(type='default_collate'),
    dataset=dict(
        type='addp_mm.TokenIds',
        data_root='data/fashion_scenes/tokens_val',
        views=dict(image_size=64, augmentation='none', count=1),
    ),
)
