# Copyright (c) addp_mm contributors. Apache-2.0.
# ADDP ViT-L (arXiv 2306.05423) with a quarter of its batch, a learning rate scaled accordingly, and
# fewer steps. Not measured.
_base_ = ['./addp_base.py']
own_data = dict(max_iters=300000)

model = dict(backbone=dict(arch=dict(embed_dims=1024, num_layers=24, num_heads=16)))
