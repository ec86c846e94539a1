# Copyright (c) addp_mm contributors. Apache-2.0.
"""Segmentors and detectors with VOLO: settings, and one step and one prediction at a small size."""

import re
from functools import cache

import pytest
import torch
from helpers.recipes import (
    CONFIGS,
    build_on_meta,
    build_recipe,
    load_recipe,
    optimizer_table,
    recipe_scope,
    shrink,
    train_step,
)
from helpers.tiny_detection import detection_batch
from helpers.tiny_volo import ARCH
from helpers.volo_reference import PATH, reference
from mmengine.model import revert_sync_batchnorm

DROP_PATH = dict(d1=0.1, d3=0.5, d4=0.5, d5=0.75)
CHANNELS = dict(d1=(192, 384), d3=(256, 512), d4=(384, 768), d5=(384, 768))
PATHS = {path.stem: path for task in ('seg', 'det') for path in sorted((CONFIGS / task).glob('*_volo-d*.py'))}
TRAINED = [stem for stem in PATHS if not stem.endswith('-ms')]
SEG, DET = 'upernet_volo-d1_8xb2-bf16-160k_ade20k-512x512', 'mask-rcnn_volo-d1_fpn_8xb2-bf16-1x_coco'


@cache
def on_meta(stem):
    cfg = load_recipe(PATHS[stem])
    return cfg, build_on_meta(cfg)


def test_the_recipes_are_those_of_the_published_numbers():
    archs = {stem: re.search(r'_volo-(d\d)', stem)[1] for stem in TRAINED}
    found = sorted((stem.split('_')[0], re.search(r'ade20k|cityscapes|coco', stem)[0], archs[stem]) for stem in archs)
    assert found == [
        ('mask-rcnn', 'coco', 'd1'),
        ('mask-rcnn', 'coco', 'd3'),
        ('upernet', 'ade20k', 'd1'),
        ('upernet', 'ade20k', 'd3'),
        ('upernet', 'ade20k', 'd5'),
        ('upernet', 'cityscapes', 'd1'),
        ('upernet', 'cityscapes', 'd4'),
    ]
    assert {stem for stem in PATHS if 'upernet' in stem} - set(TRAINED) == {
        f'{stem}-ms' for stem in TRAINED if 'upernet' in stem
    }


@pytest.mark.parametrize('stem', TRAINED)
def test_model_and_learning_rates(stem):
    cfg, model = on_meta(stem)
    arch, backbone = re.search(r'_volo-(d\d)', stem)[1], model.backbone
    narrow, wide = CHANNELS[arch]
    assert backbone.model_name == f'VOLO {arch}'
    assert backbone.out_channels == (narrow, wide, wide, wide)
    assert backbone.timm_model.network[4][-1].drop_path1.drop_prob == pytest.approx(DROP_PATH[arch])
    assert re.search(rf'/volo_1/{arch}_224_[\d.]+\.pth\.tar$', cfg.model.backbone.init_cfg.checkpoint)
    neck = model.neck[0] if 'coco' in stem else model.neck
    assert (neck.embed_dims, neck.strides) == (backbone.out_channels, backbone.out_strides)
    assert all(side % 16 == 0 for side in backbone.model_kwargs['img_size'])
    lr, weight_decay = (1e-4, 0.05) if 'coco' in stem else (6e-5, 0.01)
    assert cfg.optim_wrapper.optimizer.lr == pytest.approx(lr / 2 if 'cityscapes' in stem else lr)
    table = optimizer_table(cfg, model)
    for name, parameter in model.named_parameters():
        undecayed = parameter.ndim == 1 or name.endswith('pos_embed')
        assert table[name] == (1.0, 0.0 if undecayed else weight_decay), name


@pytest.mark.parametrize('stem', [stem for stem in TRAINED if 'upernet' in stem])
def test_crops_windows_and_heads(stem):
    cfg, model = on_meta(stem)
    size = (1024, 1024) if 'cityscapes' in stem else (512, 512)
    assert tuple(cfg.model.data_preprocessor.size) == tuple(cfg.model.test_cfg.crop_size) == size
    assert model.backbone.model_kwargs['img_size'] == size
    assert [step.crop_size for step in cfg.train_dataloader.dataset.pipeline if step.type == 'RandomCrop'] == [size]
    assert model.decode_head.in_channels == list(model.backbone.out_channels)
    assert model.auxiliary_head.in_channels == model.backbone.out_channels[2]
    assert model.decode_head.num_classes == model.auxiliary_head.num_classes == (19 if 'cityscapes' in stem else 150)
    several = load_recipe(PATHS[f'{stem}-ms'])
    assert several.model.module == cfg.model
    assert several.test_dataloader.dataset.pipeline == several.tta_pipeline


def small(stem, **options):
    """A recipe with the published reference's VOLO and its weights."""
    channels = [48, 96, 96, 96]
    cfg = load_recipe(PATHS[stem])
    cfg = shrink(cfg, **{'model.backbone.arch': ARCH, 'model.backbone.img_size': 64}, **options)
    cfg.model.backbone.init_cfg = dict(type='addp_mm.Pretrained', checkpoint=str(PATH))
    neck = cfg.model.neck[0] if 'coco' in stem else cfg.model.neck
    neck.embed_dims = channels
    cfg.optim_wrapper = dict(optimizer=cfg.optim_wrapper.optimizer)
    return cfg, channels


def check_weights(model):
    """The backbone has the reference's weights."""
    own = model.backbone.timm_model.state_dict()
    assert all(torch.equal(weight, reference()['state_dict'][name]) for name, weight in own.items())


@pytest.mark.slow
def test_a_segmentor_trains_and_predicts():
    cfg, channels = small(SEG, **{'model.data_preprocessor.size': (64, 64)})
    cfg.model.decode_head.update(in_channels=channels, channels=16)
    cfg.model.auxiliary_head.update(in_channels=96, channels=16)
    cfg.model.test_cfg.update(crop_size=(64, 64), stride=(48, 48))
    model = revert_sync_batchnorm(build_recipe(cfg))
    model.init_weights()
    assert torch.equal(
        model.backbone.timm_model.network[4][0].mlp.fc1.weight, reference()['state_dict']['network.4.0.mlp.fc1.weight']
    )
    with recipe_scope(cfg):
        from mmengine.structures import PixelData
        from mmseg.structures import SegDataSample

        def batch(height, width):
            sample = SegDataSample(gt_sem_seg=PixelData(data=torch.randint(150, (1, height, width))))
            sample.set_metainfo(dict(img_shape=(height, width), ori_shape=(height, width)))
            return dict(inputs=[torch.randint(256, (3, height, width)).byte()] * 2, data_samples=[sample] * 2)

        logged = train_step(cfg, model, batch(64, 64))
        assert logged['loss'].isfinite()
        with torch.no_grad():
            for size in ((50, 70), (80, 96)):
                result = model.eval().test_step(batch(*size))[0]
                assert result.pred_sem_seg.data.shape == (1, *size)


@pytest.mark.slow
def test_a_detector_trains_and_predicts():
    few = {
        'model.train_cfg.rpn_proposal.max_per_img': 30,
        'model.test_cfg.rpn.max_per_img': 20,
        'model.test_cfg.rcnn.score_thr': 0.0,
        'model.train_cfg.rcnn.sampler.num': 16,
    }
    cfg, channels = small(DET, **few)
    cfg.model.neck[1].in_channels = channels
    model = build_recipe(cfg)
    model.init_weights()
    assert torch.equal(
        model.backbone.timm_model.network[0][0].attn.v.weight, reference()['state_dict']['network.0.0.attn.v.weight']
    )
    logged = train_step(cfg, model, detection_batch(((64, 96),)))
    assert logged['loss_mask'].isfinite()
    with torch.no_grad():
        [result] = model.eval().test_step(detection_batch(((64, 96),)))
    assert len(result.pred_instances) > 0
