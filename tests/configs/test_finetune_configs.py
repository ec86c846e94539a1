# Copyright (c) addp_mm contributors. Apache-2.0.
"""The nano configs of ADDP for three tasks: models, a step of training, a prediction."""

import importlib
from pathlib import Path

import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.registry import DATASETS, MODELS, DefaultScope

import addp_mm  # noqa: F401  # before the packages, which need its mmcv._ext

CONFIGS = Path(__file__).parents[2] / 'configs'
PACKAGES = {'cls': 'mmpretrain', 'det': 'mmdet', 'seg': 'mmseg'}


def paths(task: str, setting: str) -> list:
    return sorted((CONFIGS / task).glob(f'*addp-vit-nano-p8_{setting}_*.py'))


def load(task: str, setting: str) -> Config:
    (path,) = paths(task, setting)
    return Config.fromfile(path)


def build_model(task: str) -> torch.nn.Module:
    """The task's model with random weights, built as by a Runner."""
    cfg = load(task, 'from-scratch')
    scope = PACKAGES[task]
    importlib.import_module(f'{scope}.models')
    model_cfg = cfg.model
    if 'data_preprocessor' in cfg:
        model_cfg = {**model_cfg, 'data_preprocessor': dict(type='ClsDataPreprocessor', **cfg.data_preprocessor)}
    torch.manual_seed(0)
    with DefaultScope.overwrite_default_scope(scope):
        return MODELS.build(Config(dict(model=model_cfg)).model)


def data_sample(task: str):
    if task == 'cls':
        from mmpretrain.structures import DataSample

        return DataSample().set_gt_label(3)
    if task == 'seg':
        from mmengine.structures import PixelData
        from mmseg.structures import SegDataSample

        labels = torch.zeros(1, 64, 64, dtype=torch.long)
        labels[:, 10:40, 20:50] = 4
        return SegDataSample(gt_sem_seg=PixelData(data=labels), metainfo=dict(img_shape=(64, 64), ori_shape=(64, 64)))
    from mmdet.structures import DetDataSample
    from mmdet.structures.mask import BitmapMasks
    from mmengine.structures import InstanceData

    mask = np.zeros((1, 64, 64), dtype=np.uint8)
    mask[:, 10:40, 20:50] = 1
    instances = InstanceData(
        bboxes=torch.tensor([[20.0, 10.0, 50.0, 40.0]]), labels=torch.tensor([3]), masks=BitmapMasks(mask, 64, 64)
    )
    info = dict(img_shape=(64, 64), ori_shape=(64, 64), scale_factor=(1.0, 1.0), batch_input_shape=(64, 64), img_id=0)
    return DetDataSample(gt_instances=instances, metainfo=info)


def batch(task: str) -> dict:
    image = torch.randint(0, 256, (3, 64, 64), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    if task == 'cls':
        return dict(inputs=torch.stack([image, 255 - image]), data_samples=[data_sample(task) for _ in range(2)])
    return dict(inputs=[image, 255 - image], data_samples=[data_sample(task) for _ in range(2)])


@pytest.mark.parametrize('task', PACKAGES)
def test_scratch_differs_only_in_its_weights(task):
    (pretrained,), (scratch,) = paths(task, 'ft'), paths(task, 'from-scratch')
    assert scratch.name == pretrained.name.replace('_ft_', '_from-scratch_')
    pretrained, scratch = Config.fromfile(pretrained).to_dict(), Config.fromfile(scratch).to_dict()
    init_cfg = pretrained['model']['backbone'].pop('init_cfg')
    assert scratch['model']['backbone'].pop('init_cfg') is None
    assert init_cfg == dict(
        type='addp_mm.Pretrained', checkpoint='addp_mm://addp_nano-p8.safetensors', prefix='backbone.'
    )
    assert pretrained == scratch


@pytest.mark.parametrize('task', PACKAGES)
def test_names_agree_with_the_configs(task):
    (path,), cfg = paths(task, 'ft'), load(task, 'ft')
    batch_size, iters = cfg.train_dataloader.batch_size, cfg.train_cfg.max_iters
    assert f'_1xb{batch_size}-fp32-{iters}i_fashion-scenes-64px' in path.stem
    assert cfg.param_scheduler[-1].end == iters == cfg.train_cfg.val_interval
    assert cfg.default_scope == PACKAGES[task]


@pytest.mark.parametrize('task', PACKAGES)
def test_the_backbone_is_that_of_pretraining(task):
    """The options are those of ADDP's backbone, except for outputs and dropout."""
    backbone = dict(load(task, 'ft').model.backbone)
    pretrained = dict(Config.fromfile(CONFIGS / '_base_/models/addp_vit-nano-p8.py').model.backbone)
    free = {'init_cfg', 'out_type', 'out_indices', 'final_norm', 'drop_rate', 'attn_drop_rate', 'drop_path_rate'}
    assert {k: v for k, v in backbone.items() if k not in free} == {
        k: v for k, v in pretrained.items() if k not in free
    }


@pytest.mark.slow
@pytest.mark.parametrize('task', PACKAGES)
def test_a_step_reaches_every_parameter_and_predicts(task):
    model = build_model(task)
    losses = model.train()(**model.data_preprocessor(batch(task), True), mode='loss')
    loss, _ = model.parse_losses(losses)
    assert torch.isfinite(loss)
    loss.backward()
    assert [name for name, p in model.named_parameters() if p.grad is None] == []
    (first, _) = model.eval().test_step(batch(task))
    if task == 'cls':
        assert first.pred_score.shape == (10,)
        assert first.pred_score.sum().item() == pytest.approx(1, abs=1e-4)
    elif task == 'seg':
        assert first.pred_sem_seg.data.shape == (1, 64, 64)
        assert first.seg_logits.data.shape == (11, 64, 64)
    else:
        assert first.pred_instances.masks.shape[1:] == (64, 64)
        assert len(first.pred_instances) <= 20


@pytest.mark.slow
@pytest.mark.parametrize('task', PACKAGES)
def test_learning_rates_fall_from_head_to_embedding(task):
    from mmengine.optim import build_optim_wrapper

    cfg, model = load(task, 'ft'), build_model(task)
    optimizer = build_optim_wrapper(model, cfg.optim_wrapper).optimizer
    rates = {id(p): group['lr'] for group in optimizer.param_groups for p in group['params']}
    assert len(rates) == len(list(model.parameters()))
    lr, decay = cfg.optim_wrapper.optimizer.lr, cfg.optim_wrapper.paramwise_cfg.layer_decay_rate
    backbone = model.backbone
    assert rates[id(backbone.patch_embed.projection.weight)] == pytest.approx(lr * decay**7)
    assert rates[id(backbone.blocks[5].mlp.fc1.weight)] == pytest.approx(lr * decay)
    assert {rates[id(p)] for name, p in model.named_parameters() if not name.startswith('backbone')} == {lr}


@pytest.mark.slow
def test_detection_levels_fit_the_objects():
    """Strides of neck, anchors and extractors agree; every object size has positive anchors."""
    cfg = load('det', 'ft')
    model = build_model('det')
    maps = model.extract_feat(torch.rand(1, 3, 64, 64))
    strides = [64 // x.shape[-1] for x in maps]
    assert strides == list(cfg.model.rpn_head.anchor_generator.strides)
    assert strides == list(cfg.model.roi_head.bbox_roi_extractor.featmap_strides)
    anchors = torch.cat(model.rpn_head.prior_generator.grid_priors([x.shape[-2:] for x in maps], device='cpu'))
    from mmdet.structures.bbox import bbox_overlaps

    for side in (12.0, 18.0, 26.0, 34.0, 44.0):
        box = torch.tensor([[32 - side / 2, 32 - side / 2, 32 + side / 2, 32 + side / 2]])
        assert bbox_overlaps(anchors, box).max() > 0.5


@pytest.mark.slow
@pytest.mark.parametrize('task', PACKAGES)
def test_datasets_read_what_the_converter_writes(task, small_scenes):
    cfg = load(task, 'ft')
    importlib.import_module(f'{PACKAGES[task]}.datasets')
    dataset_cfg = {**cfg.train_dataloader.dataset, 'data_root': str(small_scenes)}
    with DefaultScope.overwrite_default_scope(PACKAGES[task]):
        dataset = DATASETS.build(Config(dict(dataset=dataset_cfg)).dataset)
        sample = dataset[0]
    assert sample['inputs'].shape == (3, 64, 64)
    assert len(dataset) >= 4
