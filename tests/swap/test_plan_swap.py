# Copyright (c) addp_mm contributors. Apache-2.0.
"""Plans of swaps in stock configs, against the swaps of docs/swap.md and the shipped configs."""

import copy

import pytest
from helpers.hand_swaps import DETECTORS, SEGMENTORS, write_swap
from helpers.recipes import load_recipe
from mmengine.config import Config

from addp_mm.swap.differences import differences
from addp_mm.swap.plan import Change, SwapError, apply_changes
from addp_mm.swap.plan_swap import plan_swap
from addp_mm.swap.write_config import config_text


@pytest.fixture(scope='module')
def read(tmp_path_factory):
    folder = tmp_path_factory.mktemp('stock')

    def of(name: str) -> Config:
        path = folder / 'stock.py'
        path.write_text(f'_base_ = {name!r}\n')
        return Config.fromfile(path)

    return of


@pytest.fixture(scope='module')
def plan(read):
    def of(name: str, backbone: str):
        return plan_swap(read(name), name, backbone)

    return of


def values(plan) -> dict:
    return {change.key: change.value for change in plan.changes}


# In mmpretrain only few values change.
CLASSIFIERS = {
    'resnet': (
        'resnet/resnet50_8xb32_in1k.py',
        "model = dict(backbone=dict(_delete_=True, type='addp_mm.ADDPViT', arch=ARCH, out_type='avg_featmap'), "
        'neck=None, head=dict(in_channels=WIDTH))',
    ),
    'deit': (
        'deit/deit-base_16xb64_in1k.py',
        "model = dict(backbone=dict(_delete_=True, type='addp_mm.ADDPViT', arch=ARCH), head=dict(in_channels=WIDTH))",
    ),
    'mae-linear-probe': (
        'mae/benchmarks/vit-base-p16_8xb2048-linear-coslr-90e_in1k.py',
        "model = dict(backbone=dict(_delete_=True, type='addp_mm.ADDPViT', arch=ARCH, frozen_stages=12), "
        'neck=dict(input_features=WIDTH), head=dict(in_channels=WIDTH))',
    ),
}
BY_HAND = {
    **{f'mmdet::{base}': text for base, text in DETECTORS.values()},
    **{f'mmseg::{base}': text for base, text in SEGMENTORS.values()},
    **{f'mmpretrain::{base}': text for base, text in CLASSIFIERS.values()},
}
# Its swap by hand keeps the neck behind another one.
BY_HAND.pop('mmdet::deformable_detr/deformable-detr_r50_16xb2-50e_coco.py')


@pytest.mark.parametrize('name', BY_HAND)
def test_necks_and_heads_are_those_of_the_swap_written_by_hand(name, read, plan, tmp_path):
    text = BY_HAND[name].replace('ARCH', "'base'").replace('WIDTH', '768')
    by_hand = Config.fromfile(write_swap(tmp_path / 'hand.py', name, text))
    planned = plan(name, 'addp_b').apply(read(name))
    for part in (set(by_hand.model) | set(planned.model)) - {'backbone', 'data_preprocessor'}:
        assert list(differences(planned.model.get(part), by_hand.model.get(part), part)) == []
    ours, theirs = planned.model.backbone, by_hand.model.backbone
    assert ours.get('out_type', 'cls_token') == theirs.get('out_type', 'cls_token')
    for key in ('type', 'arch', 'frozen_stages'):
        assert ours.get(key) == theirs.get(key)
    if 'window_size' not in ours:
        assert ours.get('final_norm') == theirs.get('final_norm')
    assert isinstance(ours.get('out_indices', -1), int) == isinstance(theirs.get('out_indices', -1), int)


def test_a_detector_of_large_images_gets_the_backbone_of_the_shipped_configs(plan):
    shipped = load_recipe('det/retinanet_addp-vit-base-p16_8xb2-bf16-1x_coco.py')
    planned = plan('mmdet::retinanet/retinanet_r50_fpn_1x_coco.py', 'addp_b')
    changes = values(planned)
    backbone = changes['model.backbone']
    assert dict(backbone, patch_size=16) == shipped.model.backbone.to_dict()
    assert dict(changes['model.neck'], out_channels=256) == dict(shipped.model.neck, out_channels=256)
    optimizer = shipped.optim_wrapper.optimizer.to_dict()
    assert changes['optim_wrapper.optimizer'] == optimizer
    assert changes['optim_wrapper.paramwise_cfg']['layer_decay_rate'] == 0.7
    assert changes['custom_imports'] == dict(imports=['addp_mm'], allow_failed_imports=False)
    assert planned.image_divisor == 32
    assert planned.trial_size == (64, 96)
    assert 'param_scheduler' not in changes  # it has a warm-up
    assert 'model.data_preprocessor.pad_size_divisor' not in changes  # 32 already


def test_patches_of_14_px_change_the_strides_as_in_the_shipped_config(plan):
    shipped = load_recipe('det/mask-rcnn_dinov2-vit-base-p14_fpn_8xb2-bf16-1x_coco.py').model
    planned = values(plan('mmdet::mask_rcnn/mask-rcnn_r50_fpn_1x_coco.py', 'dinov2_b'))
    assert planned['model.rpn_head.anchor_generator.strides'] == shipped.rpn_head.anchor_generator.strides
    assert planned['model.rpn_head.anchor_generator.base_sizes'] == shipped.rpn_head.anchor_generator.base_sizes
    for name in ('bbox', 'mask'):
        strides = shipped.roi_head[f'{name}_roi_extractor'].featmap_strides
        assert planned[f'model.roi_head.{name}_roi_extractor.featmap_strides'] == strides
    assert planned['model.data_preprocessor.pad_size_divisor'] == shipped.data_preprocessor.pad_size_divisor
    assert planned['model.backbone']['img_size'] % 14 == 0


def test_strides_in_lists_of_heads_follow_too(plan):
    planned = values(plan('mmdet::cascade_rpn/cascade-rpn_faster-rcnn_r50-caffe_fpn_1x_coco.py', 'dinov2_b'))
    stages = planned['model.rpn_head.stages']
    assert type(stages[0]) is dict
    assert [stage['anchor_generator']['strides'] for stage in stages if 'anchor_generator' in stage][0] == [
        3.5,
        7,
        14,
        28,
        56,
    ]


def test_the_last_stage_is_used_or_a_warning_says_that_it_is_not():
    def plan(name, backbone):
        return plan_swap(load_recipe(name), name, backbone)

    detector = 'det/mask-rcnn_addp-vit-nano-p8_ft_1xb16-fp32-300i_fashion-scenes-64px.py'
    planned = plan(detector, 'volo_d1')  # levels of strides 4, 8 and 16
    assert values(planned)['model.backbone']['out_indices'] == (0, 1, 3)
    assert planned.warnings == ()
    planned = plan(detector, 'swin_t')
    assert values(planned)['model.backbone']['out_indices'] == (0, 1, 2)
    text = 'stages of swin_t after out_indices=2 are left out: the heads want no map of stride 32'
    assert planned.warnings == (text,)
    assert f'# Warning: {text}' in config_text(planned)
    planned = plan('seg/upernet_addp-vit-nano-p8_ft_1xb16-fp32-400i_fashion-scenes-64px.py', 'volo_d1')
    assert values(planned)['model.backbone']['out_indices'] == (0, 1, 2, 3)


def test_crops_and_windows_of_a_segmentor_become_multiples_of_the_patch(plan):
    planned = plan('mmseg::pspnet/pspnet_r50-d8_4xb2-40k_cityscapes-769x769.py', 'addp_b')
    changes = values(planned)
    assert changes['model.data_preprocessor.size'] == (784, 784)
    assert changes['model.test_cfg.crop_size'] == (784, 784)
    assert changes['model.backbone']['img_size'] == 784
    assert changes['model.backbone']['pad_to_patch'] is True
    assert planned.notes == ('the head reads a map of stride 16; the original has 8',)


def test_a_detr_keeps_its_optimizer_and_pads_to_its_coarsest_stride(plan):
    planned = plan('mmdet::dino/dino-4scale_r50_8xb2-12e_coco.py', 'addp_b')
    changes = values(planned)
    assert set(changes) == {
        'custom_imports',
        'model.backbone',
        'model.neck',
        'model.data_preprocessor.pad_size_divisor',
    }
    assert changes['model.data_preprocessor.pad_size_divisor'] == 64
    assert changes['model.backbone']['img_size'] == 1024
    assert planned.notes == (
        'the optimizer stays: it gives the backbone 0.1 of the learning rate',
        'the original freezes 1 stage(s) (frozen_stages=1); the new backbone is trained whole',
    )
    assert values(plan(planned.config, 'dinov2_b'))['model.data_preprocessor.pad_size_divisor'] == 56


@pytest.mark.parametrize('backbone', ['swin_t', 'volo_d1', 'resnet50'])
def test_backbones_with_stages(backbone, plan):
    changes = values(plan('mmdet::retinanet/retinanet_r50_fpn_1x_coco.py', backbone))
    if backbone == 'volo_d1':
        first, second = changes['model.neck']
        assert first == dict(
            type='addp_mm.FourScaleNeck', embed_dims=[192, 384, 384, 384], strides=[8, 16, 16, 16], start_level=1
        )
        assert second['in_channels'] == [384, 384, 384]
        assert second['num_outs'] == 5
        assert changes['model.backbone']['init_cfg']['checkpoint'].endswith('/d1_224_84.2.pth.tar')
    elif backbone == 'swin_t':
        assert changes['model.neck.in_channels'] == [96, 192, 384, 768]
        assert changes['model.backbone'] == dict(
            type='addp_mm.TimmBackbone',
            model='swin_tiny_patch4_window7_224.ms_in1k',
            out_indices=(0, 1, 2, 3),
            drop_path_rate=0.2,
            pretrained=True,
        )
    else:
        assert set(changes) == {'custom_imports', 'model.backbone'}
        assert changes['model.backbone']['out_indices'] == (1, 2, 3, 4)


def test_a_head_for_one_fine_map_reads_all_stages_from_its_stride(plan):
    changes = values(plan('mmseg::deeplabv3plus/deeplabv3plus_r50-d8_4xb4-80k_ade20k-512x512.py', 'swin_t'))
    assert changes['model.decode_head'] == dict(
        input_transform='resize_concat', in_index=[1, 2, 3], in_channels=[192, 384, 768], c1_in_channels=96
    )
    assert changes['model.auxiliary_head'] == dict(in_channels=384)
    assert changes['model.pretrained'] is None


def test_the_heads_of_a_cascade_read_the_same_maps(plan):
    changes = values(plan('mmseg::ocrnet/ocrnet_r101-d8_8xb2-80k_cityscapes-512x1024.py', 'swin_t'))
    for head in changes['model.decode_head']:
        assert head['input_transform'] == 'resize_concat'
        assert (head['in_index'], head['in_channels']) == ([1, 2, 3], [192, 384, 768])


def test_a_head_that_takes_no_lists_gets_joined_maps(plan):
    changes = values(plan('mmseg::segmenter/segmenter_vit-b_mask_8xb1-160k_ade20k-512x512.py', 'swin_t'))
    assert changes['model.backbone']['out_indices'] == (2, 3)
    assert changes['model.neck'] == dict(type='JPU', in_channels=(384, 768), mid_channels=192)
    assert changes['model.decode_head'] == dict(in_index=1)  # 4 * 192 channels, as before


@pytest.mark.parametrize(
    'backbone, channels, scales, divisor',
    [('swin_t', [96, 192, 384, 768], [0.25, 0.5, 1, 2], 32), ('volo_d1', [192, 384, 384, 384], [0.5, 1, 1, 1], 16)],
)
def test_maps_of_a_pyramid_are_resized_for_a_head_of_a_plain_transformer(backbone, channels, scales, divisor, plan):
    changes = values(plan('mmseg::setr/setr_vit-l_mla_8xb2-160k_ade20k-512x512.py', backbone))
    resized, mla = changes['model.neck']
    assert resized == dict(type='MultiLevelNeck', in_channels=channels, out_channels=256, scales=scales)
    assert (mla['type'], mla['in_channels']) == ('MLANeck', [256] * 4)
    assert changes['model.data_preprocessor.test_cfg'] == dict(size_divisor=divisor)


def test_lists_of_heads_are_written_whole(plan, read):
    name = 'mmseg::ocrnet/ocrnet_hr18_4xb4-80k_ade20k-512x512.py'
    planned = plan(name, 'addp_b')
    heads = values(planned)['model.decode_head']
    assert [head['in_channels'] for head in heads] == [[768] * 4] * 2
    stock = read(name)
    changed = differences(stock.model.decode_head, planned.apply(stock).model.decode_head)
    assert {one.key for one in changed} == {'0.in_channels', '1.in_channels'}


def test_learning_rates_of_a_schedule_become_ratios(plan):
    changes = values(plan('mmseg::fcn/fcn_r50-d8_4xb4-80k_ade20k-512x512.py', 'addp_b'))
    warm_up, poly = changes['param_scheduler']
    assert warm_up == dict(type='LinearLR', start_factor=1e-3, by_epoch=False, begin=0, end=1500)
    assert poly['eta_min'] == 0
    assert changes['optim_wrapper.optimizer']['lr'] == 1e-4
    changes = values(plan('mmpretrain::deit/deit-base_16xb64_in1k.py', 'addp_b'))
    assert 'optim_wrapper.optimizer' not in changes  # AdamW already
    assert changes['param_scheduler'][1]['eta_min_ratio'] == pytest.approx(0.01)
    assert changes['optim_wrapper.paramwise_cfg'] == dict(
        layer_decay_rate=0.65, flat_decay_mult=0.0, embed_decay_mult=0.0, norm_decay_mult=0.0, bias_decay_mult=0.0
    )


def test_the_learning_rate_follows_the_batch(plan):
    changes = values(plan('mmdet::yolox/yolox_s_8xb8-300e_coco.py', 'addp_b'))
    assert changes['optim_wrapper.optimizer']['lr'] == pytest.approx(4e-4)
    assert changes['model.neck']['out_channels'] == 128


def test_colours_are_those_of_the_backbone(plan):
    name = 'mmdet::fcos/fcos_r50-caffe_fpn_gn-head_1x_coco.py'
    changes = values(plan(name, 'augreg_b'))
    assert changes['model.data_preprocessor.mean'] == [127.5] * 3
    assert changes['model.data_preprocessor.std'] == [127.5] * 3
    assert changes['model.data_preprocessor.bgr_to_rgb'] is True
    changes = values(plan('mmpretrain::resnet/resnet50_8xb32_in1k.py', 'augreg_b'))
    assert changes['data_preprocessor.mean'] == [127.5] * 3
    assert 'data_preprocessor.to_rgb' not in changes  # it is RGB already


def test_a_frozen_backbone_stays_frozen(plan):
    planned = plan('mmpretrain::mae/benchmarks/vit-base-p16_8xb2048-linear-coslr-90e_in1k.py', 'volo_d1')
    changes = values(planned)
    assert changes['model.backbone']['frozen_stages'] == 4
    assert changes['model.neck'] == dict(type='ClsBatchNormNeck', input_features=384)
    assert changes['model.head.in_channels'] == 384
    assert not any(key.startswith(('optim_wrapper', 'param_scheduler')) for key in changes)
    assert len(planned.notes) == 2


def test_the_width_of_a_head_behind_a_neck_with_other_channels(plan):
    changes = values(plan('mmpretrain::hrnet/hrnet-w18_4xb32_in1k.py', 'addp_b'))
    assert changes['model.neck'] is None
    assert changes['model.head.in_channels'] == 768


def test_a_plan_leaves_the_config_as_it_is(read):
    name = 'mmseg::upernet/upernet_r50_4xb4-160k_ade20k-512x512.py'
    cfg = read(name)
    before = copy.deepcopy(cfg.to_dict())
    planned = plan_swap(cfg, name, 'volo_d1')
    changed = planned.apply(cfg)
    changed.model.backbone.type = 'other'
    assert cfg.to_dict() == before
    assert values(planned)['model.backbone']['type'] == 'addp_mm.VOLO'
    assert len({change.key for change in planned.changes}) == len(planned.changes)
    assert all(change.reason and not change.reason.endswith('.') for change in planned.changes)


@pytest.mark.parametrize('stock', [None, 'absent', 'list'])
def test_a_neck_replaces_none_or_a_list(stock, read, tmp_path):
    name = 'mmdet::retinanet/retinanet_r50_fpn_1x_coco.py'
    cfg = read(name)
    neck = cfg.model.pop('neck')
    if stock == 'list':
        cfg.model.neck = [neck]
    else:  # as a head on the backbone's own maps would have it
        cfg.model.bbox_head.in_channels = [256, 512, 1024, 2048]
        if stock is None:
            cfg.model.neck = None
    planned = plan_swap(cfg, name, 'addp_b')
    [change] = [change for change in planned.changes if change.key == 'model.neck']
    assert change.delete == (stock is None)
    assert isinstance(change.value, list) == (stock == 'list')
    cfg.dump(tmp_path / 'stock.py')
    value = dict(change.value, _delete_=True) if change.delete else change.value
    (tmp_path / 'swap.py').write_text(f"_base_ = 'stock.py'\nmodel = dict(neck={value!r})\n")
    found = Config.fromfile(tmp_path / 'swap.py').model.neck
    assert found == planned.apply(cfg).model.neck
    assert (found[0] if stock == 'list' else found).type.startswith('addp_mm.')


def test_apply_replaces_whole_dicts_only_where_a_change_says_so():
    cfg = Config(dict(model=dict(neck=dict(type='A', x=1), head=dict(y=2))))
    changes = [
        Change('model.neck', dict(type='B'), 'a', delete=True),
        Change('model.head', dict(z=3), 'b'),
        Change('new.part', [1], 'c'),
    ]
    assert apply_changes(cfg, changes).to_dict() == dict(
        model=dict(neck=dict(type='B'), head=dict(y=2, z=3)), new=dict(part=[1])
    )


REFUSED = {
    'mmdet::ld/ld_r18-gflv1-r101_fpn_1x_coco.py': 'learns from a teacher',
    'mmdet::soft_teacher/soft-teacher_faster-rcnn_r50-caffe_fpn_180k_semi-0.1-coco.py': 'no model.backbone to swap',
    'mmdet::qdtrack/qdtrack_faster-rcnn_r50_fpn_4e_base.py': 'no model.backbone to swap; its parts are .*detector',
    'mmdet::cornernet/cornernet_hourglass104_8xb6-210e-mstest_coco.py': 'CornerHead: it reads the two stacks',
    'mmdet::detectors/cascade-rcnn_r50-rfp_1x_coco.py': 'model.neck is a RFP',
    'mmdet::tridentnet/tridentnet_r50-caffe_1x_coco.py': 'three branches',
    'mmseg::unet/unet-s5-d16_fcn_4xb4-160k_cityscapes-512x1024.py': 'reads a map of stride 1, as in a U-Net',
    'mmseg::dpt/dpt_vit-b16_8xb2-160k_ade20k-512x512.py': 'DPTHead: it reads the class token',
    'mmdet::ssd/ssd300_coco.py': 'the neck of the original config does not run on images of another size',
    'mmpretrain::mae/mae_vit-base-p16_8xb512-amp-coslr-300e_in1k.py': 'MAE is no classifier',
    'mmpretrain::conformer/conformer-tiny-p16_8xb128_in1k.py': 'head takes neither one vector nor one map',
}


@pytest.mark.parametrize('name', REFUSED)
def test_models_that_belong_to_their_backbone_are_refused_with_the_reason(name, plan):
    with pytest.raises(SwapError, match=REFUSED[name]) as caught:
        plan(name, 'swin_t')
    assert str(caught.value).startswith(name)


def test_configs_of_other_packages_are_refused():
    with pytest.raises(SwapError, match="x.py has default_scope='mmpose'; swaps serve mmdet, mmseg, mmpretrain"):
        plan_swap(Config(dict(default_scope='mmpose')), 'x.py', 'addp_b')
