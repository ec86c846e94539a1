# Copyright (c) addp_mm contributors. Apache-2.0.
# Token ids and classes of FashionScenes' images of one garment, for each image and its mirror
# image. To write them: python tools/dataset_converters/tokenize_images.py \
#   addp_mm::_base_/models/vq-tokenizer_nano-p8_released.py \
#   data/fashion_scenes/objects/train data/fashion_scenes/object_tokens --img-size 64 \
#   --augment flip --labels folders
_base_ = './fashion_scenes_tokens.py'

labels = dict(
    classes=['ankle-boot', 'bag', 'coat', 'dress', 'pullover', 'sandal', 'shirt', 'sneaker', 't-shirt', 'trouser']
)
train_dataloader = dict(dataset=dict(data_root='data/fashion_scenes/object_tokens', labels=labels))

# Held-out images for testing: python tools/dataset_converters/tokenize_images.py \
#   addp_mm::_base_/models/vq-tokenizer_nano-p8_released.py \
#   data/fashion_scenes/objects/val data/fashion_scenes/object_tokens_val --img-size 64 \
#   --augment none --labels folders
test_dataloader = dict(dataset=dict(data_root='data/fashion_scenes/object_tokens_val', labels=labels))
