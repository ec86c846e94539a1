# Copyright (c) addp_mm contributors. Apache-2.0.
# Alignment of the class-conditional nano generator: 128 images of each garment, and how much a
# classifier sees the garment in them. Pairs are the best and the worst quarter of each garment.
folder = 'work_dirs/align_nano/seed_0/'
alignment = dict(
    base=dict(
        config='addp_vit-nano-p8_class-cond_2xb16-fp32-4k_fashion-scenes-64px',
        checkpoint='addp_mm://addp_nano-p8_class-cond.safetensors',
    ),
    sampling=dict(
        num_images=1280, batch_size=32, classes='all', steps=8, schedule='power:3.1', order='halton', top_p=0.69
    ),
    reward=dict(
        type='addp_mm.ClassifierReward',
        config='resnet18-nano_from-scratch_1xb64-fp32-2k_fashion-scenes-64px',
        checkpoint='addp_mm://resnet18-nano.safetensors',
    ),
    selection=dict(by='rank', right=0.25, wrong=0.25, pairs_per_question=32),
    likelihood='likelihood_addp-vit-nano-p8_class-cond_1xb8-fp32-200i_fashion-scenes-64px',
    contrast=1.0,
    comparison=dict(
        num_images=320,
        measures=dict(not_empty=dict(type='addp_mm.SceneReward')),
        extractor='addp-vit-nano-p8',
        reference='data/fashion_scenes/objects/val',
    ),
)
