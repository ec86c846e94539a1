# Copyright (c) addp_mm contributors. Apache-2.0.
"""mmsegmentation's own configs with ADDPViT. Only backbone, neck and channels are replaced."""

from importlib.util import find_spec
from pathlib import Path

import pytest
import torch
from helpers.stock_swaps import WIDTH, build, replaced, run_in_new_process, step_and_predict, write_swap
from mmengine.config import Config
from mmengine.structures import PixelData

FOUR_MAPS = """
model = dict(
    backbone=dict(
        _delete_=True, type='addp_mm.ADDPViT', arch=ARCH, img_size=512, out_indices=(0, 1, 2, 3), out_type='featmap',
        final_norm=False),
"""
LAST_MAP = """
model = dict(
    backbone=dict(
        _delete_=True, type='addp_mm.ADDPViT', arch=ARCH, img_size=512, out_indices=-1, out_type='featmap'),
"""
PYRAMID = FOUR_MAPS + "    neck=dict(type='addp_mm.FourScaleNeck', embed_dims=WIDTH),\n"
AUXILIARY = '    auxiliary_head=dict(in_channels=WIDTH),\n    pretrained=None)\n'
ONE_HEAD = FOUR_MAPS + '    decode_head=dict(in_channels=WIDTH),\n' + AUXILIARY
# A config of mmseg, and the text that replaces parts of it. DeepLabV3+ uses only two maps: a neck
# with more of them would have parameters without a gradient.
SWAPS = {
    'upernet': (
        'upernet/upernet_r50_4xb4-160k_ade20k-512x512.py',
        PYRAMID + '    decode_head=dict(in_channels=[WIDTH] * 4),\n' + AUXILIARY,
    ),
    'fcn': ('fcn/fcn_r50-d8_4xb4-80k_ade20k-512x512.py', ONE_HEAD),
    'pspnet': ('pspnet/pspnet_r50-d8_4xb4-80k_ade20k-512x512.py', ONE_HEAD),
    'deeplabv3plus': (
        'deeplabv3plus/deeplabv3plus_r50-d8_4xb4-80k_ade20k-512x512.py',
        LAST_MAP
        + """
    neck=dict(type='addp_mm.SimpleFPN', in_channels=WIDTH, out_channels=256, scales=(4, 1)),
    decode_head=dict(in_channels=256, in_index=1),
    auxiliary_head=dict(in_channels=256, in_index=1),
    pretrained=None)
""",
    ),
    'segformer': (
        'segformer/segformer_mit-b0_8xb2-160k_ade20k-512x512.py',
        PYRAMID + '    decode_head=dict(in_channels=[WIDTH] * 4))\n',
    ),
    'mask2former': (
        'mask2former/mask2former_r50_8xb2-160k_ade20k-512x512.py',
        PYRAMID + '    decode_head=dict(in_channels=[WIDTH] * 4))\n',
    ),
    'setr': (
        'setr/setr_vit-l_pup_8xb2-160k_ade20k-512x512.py',
        FOUR_MAPS + '    decode_head=dict(in_channels=WIDTH),\n'
        '    auxiliary_head=[dict(head, in_channels=WIDTH) for head in _base_.model.auxiliary_head])\n',
    ),
    'segmenter': (
        'segmenter/segmenter_vit-b_mask_8xb1-160k_ade20k-512x512.py',
        LAST_MAP + '    decode_head=dict(in_channels=WIDTH),\n    pretrained=None)\n',
    ),
}
FOLLOWS = ('.in_channels', '.c1_in_channels', '.in_index')


def segmentation_batch(size=(96, 64)) -> dict:
    from mmseg.structures import SegDataSample

    generator = torch.Generator().manual_seed(0)
    samples = []
    for _ in range(2):
        blocks = torch.randint(0, 150, (1, size[0] // 16, size[1] // 16), generator=generator)
        labels = blocks.repeat_interleave(16, 1).repeat_interleave(16, 2)
        samples.append(
            SegDataSample(
                gt_sem_seg=PixelData(data=labels), metainfo=dict(img_shape=size, ori_shape=size, pad_shape=size)
            )
        )
    images = [torch.randint(0, 256, (3, *size), generator=generator, dtype=torch.uint8) for _ in samples]
    return dict(inputs=images, data_samples=samples)


def read(tmp_path, name: str, custom_imports: bool) -> Config:
    base, model = SWAPS[name]
    cfg = Config.fromfile(write_swap(tmp_path / f'{name}.py', f'mmseg::{base}', model, custom_imports))
    # the step uses the images of the test, not crops of 512 px; a Runner turns SyncBN into BN
    cfg.model.data_preprocessor.size = None
    cfg.model.data_preprocessor.size_divisor = 16
    return cfg


@pytest.mark.parametrize('name', SWAPS)
def test_only_backbone_neck_and_channels_are_replaced(name, tmp_path):
    base, model = SWAPS[name]
    path = write_swap(tmp_path / 'swap.py', f'mmseg::{base}', model)
    (tmp_path / 'stock.py').write_text(f"_base_ = 'mmseg::{base}'\n")
    names = replaced(Config.fromfile(path).to_dict(), Config.fromfile(tmp_path / 'stock.py').to_dict())
    rest = names - {'model.backbone', 'model.neck', 'model.pretrained'}
    assert 'model.backbone' in names
    assert rest
    assert {item for item in rest if not any(key in item for key in FOLLOWS)} == set()


@pytest.mark.slow
@pytest.mark.parametrize('name', SWAPS)
def test_a_stock_config_trains_and_predicts(name, tmp_path):
    cfg = read(tmp_path, name, custom_imports=False)
    model = build(cfg)
    logged, idle, predictions = step_and_predict(cfg, model, segmentation_batch())
    assert all(torch.isfinite(value).all() for value in logged.values())
    assert 'loss' in logged
    assert idle == []
    for prediction in predictions:
        assert prediction.pred_sem_seg.data.shape == (1, 96, 64)
        assert prediction.seg_logits.data.shape == (150, 96, 64)
    assert type(model).__module__.startswith('mmseg.')
    assert model.backbone.embed_dims == WIDTH


@pytest.mark.slow
def test_mmseg_may_be_imported_first(tmp_path):
    """In the other tests of this file addp_mm is imported first, without custom_imports."""
    base, model = SWAPS['upernet']
    # by its path: the forks' mmengine finds mmseg::… only after addp_mm is imported
    base = Path(find_spec('mmseg').origin).parent / '.mim/configs' / base
    path = write_swap(tmp_path / 'swap.py', str(base), model, custom_imports=True)
    source = f"""
import mmseg.registry
from mmengine.config import Config
cfg = Config.fromfile({str(path)!r})
from helpers.stock_swaps import build, step_and_predict
from swap.test_swap_seg import segmentation_batch
cfg.model.data_preprocessor.size = None
cfg.model.data_preprocessor.size_divisor = 16
logged, idle, predictions = step_and_predict(cfg, build(cfg), segmentation_batch())
assert not idle and predictions[0].seg_logits.data.shape == (150, 96, 64)
print('loss', float(logged['loss']))
"""
    assert 'loss' in run_in_new_process(source)
