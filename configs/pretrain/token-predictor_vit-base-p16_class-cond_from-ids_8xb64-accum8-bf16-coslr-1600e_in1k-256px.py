# Copyright (c) addp_mm contributors. Apache-2.0.
# MAGE ViT-B on stored ids and classes of ImageNet. The recipe is MAGE's, whose released training
# has no classes; the classes, their slots and the drop rate are ours. The ids need their classes:
# add --labels folders to the command in imagenet_256_tokens.py.
_base_ = './token-predictor_vit-base-p16_from-ids_8xb64-accum8-bf16-coslr-1600e_in1k-256px.py'

# one slot more than in the released vocabulary, for the fake class of images without a class
token_space = dict(num_class_slots=1001, fake_class_slot=1000, num_classes=1000)
# classifier-free guidance (arXiv 2207.12598) found 0.1 and 0.2 equally good
model = dict(predictor=dict(token_space=token_space), class_drop_rate=0.1)
