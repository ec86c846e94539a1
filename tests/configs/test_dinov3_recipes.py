# Copyright (c) addp_mm contributors. Apache-2.0.
"""DINOv3 in UperNet and Mask R-CNN: the recipes of ADDP with another backbone, and LoRA."""

import copy
import re

import pytest
import torch
from helpers.recipes import build_on_meta, build_recipe, load_recipe, optimizer_table, shrink, train_step
from helpers.run_tools import ROOT
from helpers.tiny_detection import detection_batch

from addp_mm.models.layers.lora_weights import is_adapter

UPERNET = 'seg/upernet_{}-vit-base-p16_8xb2-bf16-160k_ade20k-512x512.py'
CITYSCAPES = 'seg/upernet_{}-vit-base-p16_8xb1-bf16-80k_cityscapes-768x768.py'
MASK_RCNN = 'det/mask-rcnn_{}-vit-base-p16_fpn_8xb2-bf16-1x_coco.py'
LORA = 'det/mask-rcnn_dinov3-vit-base-p16_fpn_lora_8xb2-bf16-1x_coco.py'


@pytest.mark.parametrize('recipe, decay', [(UPERNET, 0.65), (CITYSCAPES, 0.65), (MASK_RCNN, 0.7)])
def test_only_the_backbone_differs_from_addp(recipe, decay):
    cfg, addp = load_recipe(recipe.format('dinov3')), load_recipe(recipe.format('addp'))
    backbone, other = cfg.model.pop('backbone'), addp.model.pop('backbone')
    assert (backbone.type, backbone.model) == ('addp_mm.TimmBackbone', 'vit_base_patch16_dinov3.lvd1689m')
    assert backbone.pretrained
    for option in ('out_indices', 'final_norm', 'drop_path_rate'):
        assert backbone[option] == other[option]
    assert cfg.model == addp.model
    for part in ('optim_wrapper', 'param_scheduler', 'train_cfg', 'train_dataloader', 'val_dataloader'):
        assert cfg[part] == addp[part]
    cfg.model.backbone = backbone
    model = build_on_meta(cfg)
    assert model.backbone.out_channels == (768,) * 4
    assert model.backbone.out_strides == (16,) * 4
    table = optimizer_table(cfg, model)
    assert set(table) == {name for name, _ in model.named_parameters()}
    for block in (0, 11):
        name = f'backbone.timm_model.blocks.{block}.attn.qkv.weight'
        assert table[name] == (pytest.approx(decay ** (12 - block), rel=1e-6), 0.05)
    assert table['backbone.timm_model.patch_embed.proj.weight'][0] == pytest.approx(decay**13, rel=1e-6)
    assert table['backbone.timm_model.blocks.3.norm1.weight'][1] == 0.0
    if decay == 0.65:  # no weight decay of tokens
        assert table['backbone.timm_model.cls_token'][1] == table['backbone.timm_model.reg_token'][1] == 0.0


def test_lora_trains_adapters_in_every_attention():
    cfg, whole = load_recipe(LORA), load_recipe(MASK_RCNN.format('dinov3'))
    model = build_on_meta(cfg)
    trained = [name for name, value in model.backbone.named_parameters() if value.requires_grad]
    assert all(map(is_adapter, trained))
    assert len(trained) == 12 * 2 * 2
    table = optimizer_table(cfg, model)
    assert {share for share, _ in table.values()} == {1.0}
    assert {name for name in table if name.startswith('backbone.')} == {f'backbone.{name}' for name in trained}
    lora = cfg.model.backbone.pop('lora')
    assert lora == dict(rank=8, alpha=16, targets=('qkv', 'proj'))
    cfg.model.backbone.drop_path_rate = whole.model.backbone.drop_path_rate
    assert cfg.model == whole.model


def test_the_detector_of_the_page_trains_adapters_and_heads(tmp_path):
    page = (ROOT / 'docs/timm_backbones.md').read_text()
    (tmp_path / 'my_lora_detector.py').write_text(
        re.search(r'```python\n(# my_lora_detector\.py.*?)```', page, re.S)[1]
    )
    cfg = load_recipe(tmp_path / 'my_lora_detector.py')
    model = build_on_meta(cfg)
    trained = {name for name, value in model.backbone.named_parameters() if value.requires_grad}
    assert len(trained) == 12 * 2 * 2
    assert all(map(is_adapter, trained))
    assert all(value.requires_grad for value in model.roi_head.parameters())


@pytest.mark.slow
def test_lora_at_a_small_size_trains_and_predicts():
    cfg = shrink(
        load_recipe(LORA),
        **{
            'model.backbone.model_kwargs': dict(embed_dim=32, depth=4, num_heads=2),
            'model.backbone.out_indices': (0, 1, 2, 3),
            'model.backbone.pretrained': False,
            'model.neck.0.embed_dims': 32,
            'model.neck.1.in_channels': [32] * 4,
            'model.train_cfg.rcnn.sampler.num': 16,
            'model.train_cfg.rpn_proposal.max_per_img': 30,
            'model.test_cfg.rpn.max_per_img': 20,
            'model.test_cfg.rcnn.score_thr': 0.0,
        },
    )
    model = build_recipe(cfg)
    model.init_weights()
    before = copy.deepcopy(model.backbone.state_dict())
    logged = train_step(cfg, model, detection_batch(((64, 96),)))
    assert logged['loss'].isfinite()
    changed = {name for name, value in model.backbone.state_dict().items() if not torch.equal(value, before[name])}
    assert changed == {name for name in before if '.lora_A.' in name or '.lora_B.' in name}
    with torch.no_grad():
        (result,) = model.eval().test_step(detection_batch(((64, 96),)))
    assert len(result.pred_instances) > 0
