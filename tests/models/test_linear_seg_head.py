# Copyright (c) addp_mm contributors. Apache-2.0.
"""The linear segmentation head equals its formula, and learns on a backbone that stays as it is."""

import pytest
import torch
import torch.nn.functional as F
from mmengine.registry import DefaultScope
from mmengine.structures import PixelData

from addp_mm import registry  # before mmseg, which needs its mmcv._ext
from addp_mm.models.layers import OptionError
from addp_mm.registry import MODELS


def build(**options):
    import mmseg.models  # noqa: F401

    with DefaultScope.overwrite_default_scope('mmseg'):
        return MODELS.build(dict(type='addp_mm.LinearSegHead', num_classes=5, norm_cfg=dict(type='BN'), **options))


def test_it_equals_resizing_normalising_and_a_matrix():
    head = build(in_channels=[6, 4], in_index=[0, 2]).train()
    maps = [torch.randn(3, 6, 8, 12), torch.randn(3, 9, 8, 12), torch.randn(3, 4, 4, 6)]
    joined = torch.cat([maps[0], F.interpolate(maps[2], size=(8, 12), mode='bilinear', align_corners=False)], dim=1)
    mean, var = joined.mean(dim=(0, 2, 3)), joined.var(dim=(0, 2, 3), unbiased=False)
    torch.nn.init.normal_(head.norm.weight)
    torch.nn.init.normal_(head.norm.bias)
    normalised = (joined.movedim(1, -1) - mean) / (var + head.norm.eps).sqrt() * head.norm.weight + head.norm.bias
    expected = normalised @ head.conv_seg.weight[:, :, 0, 0].T + head.conv_seg.bias
    torch.testing.assert_close(head(maps), expected.movedim(-1, 1), atol=1e-4, rtol=1e-4)
    assert {name for name, _ in head.named_parameters()} == {
        'norm.weight',
        'norm.bias',
        'conv_seg.weight',
        'conv_seg.bias',
    }


def test_one_number_of_channels_stands_for_the_last_map():
    head = build(in_channels=4).eval()
    maps = [torch.randn(1, 9, 8, 8), torch.randn(1, 4, 4, 4)]
    assert torch.equal(head(maps), head(maps[-1:]))
    assert head.dropout is None


def test_indices_and_channels_must_agree():
    with pytest.raises(OptionError, match=r'in_channels=\[6, 4\] describes 2 maps, and in_index=0 selects 1'):
        build(in_channels=[6, 4], in_index=0)


def test_only_the_head_learns():
    """After steps with a large rate, weights and statistics of the backbone are the same."""
    import mmseg.models  # noqa: F401
    from mmseg.structures import SegDataSample

    with DefaultScope.overwrite_default_scope('mmseg'):
        model = MODELS.build(
            dict(
                type='mmseg.EncoderDecoder',
                data_preprocessor=dict(type='mmseg.SegDataPreProcessor'),
                backbone=dict(type='mmseg.ResNet', depth=18, base_channels=8, frozen_stages=4, norm_eval=True),
                decode_head=dict(
                    type='addp_mm.LinearSegHead', in_channels=[8, 16, 32, 64], num_classes=5, norm_cfg=dict(type='BN')
                ),
            )
        )
    before = {name: value.clone() for name, value in model.state_dict().items()}
    optimizer = torch.optim.SGD(model.parameters(), lr=1.0)
    labels = PixelData(data=torch.randint(0, 5, (1, 64, 64)))
    samples = [SegDataSample(gt_sem_seg=labels) for _ in range(2)]
    for _ in range(2):
        model.train()
        loss, _ = model.parse_losses(model(torch.rand(2, 3, 64, 64), samples, mode='loss'))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    changed = {name for name, value in model.state_dict().items() if not torch.equal(value, before[name])}
    assert changed == {name for name in before if name.startswith('decode_head.')}


def test_task_packages_are_imported_only_for_the_classes_that_need_them(monkeypatch):
    imported = []
    monkeypatch.setattr(registry, 'import_module', imported.append)
    assert MODELS.get('addp_mm.NoSuchHead') is None
    assert imported == [f'addp_mm.models.{name}' for name in MODELS.packages]
    imported.clear()
    MODELS.get('addp_mm.LinearSegHead')
    assert imported == ['addp_mm.models.decode_heads']
