# Copyright (c) addp_mm contributors. Apache-2.0.
# Token labelling: the labels of the tokens are read from label maps.
_base_ = [
    '../_base_/models/classifier_volo-d1.py',
    '../_base_/datasets/imagenet_224_token-label.py',
    '../_base_/schedules/volo_300e.py',
    '../_base_/default_runtime.py',
]
default_scope = 'mmpretrain'

default_hooks = dict(checkpoint=dict(save_best='accuracy/top1'))
randomness = dict(seed=0, diff_rank_seed=True)
