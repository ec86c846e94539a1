# Copyright (c) addp_mm contributors. Apache-2.0.
# ImageNet at 256 px for k-NN: both splits without augmentation. The 10 or 20 nearest training
# images vote, weighted with temperature 0.07, as in DINO (arXiv 2104.14294).
_base_ = './imagenet_256_probe.py'

train_dataloader = val_dataloader = val_evaluator = None

test_cfg = dict(
    type='addp_mm.NearestNeighbourTestLoop',
    bank_dataloader=dict(
        batch_size=128,
        num_workers=8,
        pin_memory=True,
        dataset=dict(type='ImageNet', data_root='data/imagenet/', split='train', pipeline=_base_.test_pipeline),
    ),
    num_neighbours=(10, 20),
    temperature=0.07,
    num_classes=1000,
)
test_evaluator = dict(type='addp_mm.NeighbourAccuracy', topk=(1, 5), _delete_=True)
