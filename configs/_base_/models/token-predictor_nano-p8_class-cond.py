# Copyright (c) addp_mm contributors. Apache-2.0.
# The nano predictor with the ten garments as classes: 11 class slots, the last one for the fake
# class of images without a class.
_base_ = './token-predictor_nano-p8.py'
token_space = dict(codebook_size=512, num_class_slots=11, fake_class_slot=10, num_classes=10)
predictor = dict(token_space=token_space)
