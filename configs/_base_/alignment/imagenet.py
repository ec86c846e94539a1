# Copyright (c) addp_mm contributors. Apache-2.0.
# Alignment of the released ADDP ViT-B, which has no classes: the images answer no question, and are
# right if a ResNet-50 is sure of a class of ImageNet.
folder = 'work_dirs/align_base/seed_0/'
alignment = dict(
    base=dict(
        config='addp_vit-base-p16_8xb64-accum8-bf16-coslr-1600e_in1k-256px',
        checkpoint='work_dirs/addp-vit-base-p16.safetensors',
    ),
    # the frozen generator has the precision of the sampling, the trained one that of its training
    sampling=dict(num_images=8192, batch_size=64, steps=20, amp=True),
    reward=dict(
        type='addp_mm.ClassifierReward',
        config='mmpretrain::resnet/resnet50_8xb32_in1k.py',
        checkpoint='https://download.openmmlab.com/mmclassification/v0/resnet/resnet50_8xb32_in1k_20210831-ea4938fc.pth',
        target='most_likely',
    ),
    selection=dict(by='rank', right=0.25, wrong=0.25, pairs_per_question=2048),
    likelihood='likelihood_addp-vit-base-p16_8xb2-accum4-bf16-1k_in1k-256px',
    contrast=1.0,
    comparison=dict(num_images=2048, extractor='inception', reference='data/imagenet/val', measures=dict()),
)
