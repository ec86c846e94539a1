# Copyright (c) addp_mm contributors. Apache-2.0.
# DINOv3's ViT-B/16 (arXiv 2508.10104), trained on LVD-1689M, from timm. Its positions are rotary:
# there are no embeddings to resize.
baseline = dict(type='addp_mm.TimmBackbone', model='vit_base_patch16_dinov3.lvd1689m', pretrained=True)
