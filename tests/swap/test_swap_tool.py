# Copyright (c) addp_mm contributors. Apache-2.0.
"""``addp swap``: stock configs of all kinds get another backbone, and mistakes are named."""

import json
from pathlib import Path

import pytest
from helpers.tiny_zoo import tiny_zoo  # noqa: F401  # a fixture
from mmengine.config import Config

from addp_mm.__main__ import main
from addp_mm.config.config_file import load_config
from addp_mm.swap.differences import differences
from addp_mm.swap.plan_swap import plan_swap
from addp_mm.swap.trial import TrialError
from addp_mm.swap.zoo import ZOO

FASTER = 'mmdet::faster_rcnn/faster-rcnn_r50_fpn_1x_coco.py'
FCN = 'mmseg::fcn/fcn_r50-d8_4xb4-80k_ade20k-512x512.py'
DEIT = 'mmpretrain::deit/deit-base_16xb64_in1k.py'
# two-stage, one-stage, DETR, panoptic, semantic, classification
SWAPS = [
    ('mmdet::mask_rcnn/mask-rcnn_r50_fpn_1x_coco.py', 'addp_b'),
    ('mmdet::cascade_rcnn/cascade-rcnn_r50_fpn_1x_coco.py', 'volo_d1'),
    ('mmdet::retinanet/retinanet_r50_fpn_1x_coco.py', 'volo_d1'),
    ('mmdet::fcos/fcos_r50-caffe_fpn_gn-head_1x_coco.py', 'addp_b'),
    ('mmdet::rtmdet/rtmdet_s_8xb32-300e_coco.py', 'swin_t'),
    ('mmdet::detr/detr_r50_8xb2-150e_coco.py', 'swin_t'),
    ('mmdet::dino/dino-4scale_r50_8xb2-12e_coco.py', 'addp_b'),
    ('mmdet::panoptic_fpn/panoptic-fpn_r50_fpn_1x_coco.py', 'swin_t'),
    ('mmseg::upernet/upernet_r50_4xb4-160k_ade20k-512x512.py', 'volo_d1'),
    ('mmseg::segformer/segformer_mit-b0_8xb2-160k_ade20k-512x512.py', 'addp_b'),
    (FCN, 'swin_t'),
    ('mmpretrain::resnet/resnet50_8xb32_in1k.py', 'volo_d1'),
    (DEIT, 'addp_b'),
]


def swap(*arguments: str) -> None:
    main(['swap', *arguments])


@pytest.mark.slow
@pytest.mark.usefixtures('tiny_zoo')
@pytest.mark.parametrize('config, backbone', SWAPS)
def test_a_stock_config_gets_another_backbone(config, backbone, tmp_path, capsys):
    out = tmp_path / 'new.py'
    swap(config, '--backbone', backbone, '--out', str(out), '--json')
    report = json.loads(capsys.readouterr().out)
    before = load_config(config)
    planned = plan_swap(before, config, backbone).apply(before)
    written = Config.fromfile(out)
    assert list(differences(planned.to_dict(), written.to_dict())) == []
    assert written.model.backbone.type == ZOO[backbone].backbone['type']
    assert report['trial_error'] is None
    assert report['trial']['losses']['loss'] > 0
    assert report['trial']['maps']
    assert report['parameters']['before'] != report['parameters']['after'] == report['trial']['parameters']
    assert {'model.backbone', 'custom_imports'} <= {change['key'] for change in report['changes']}
    assert all(change['reason'] for change in report['changes'])
    assert report['command'] == f'addp train {out}'


@pytest.mark.usefixtures('tiny_zoo')
def test_the_printed_report_and_a_check_of_the_written_config(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    swap(FCN, '--backbone', 'addp_b', '--out', 'new.py')
    printed = capsys.readouterr().out
    assert 'key ' in printed.splitlines()[2]
    assert 'model.decode_head.in_channels     2048 ' in printed
    assert 'maps for the heads: 32 channels at stride 16' in printed, printed
    assert 'trial: one training step (loss ' in printed
    assert 'these weights are not downloaded' in printed
    assert printed.endswith('written: new.py\ntrain it: addp train new.py\n')
    assert sorted(path.name for path in tmp_path.iterdir()) == ['new.py']
    with pytest.raises(SystemExit) as ended:
        swap('new.py', '--check')
    assert not ended.value.code
    assert 'passed  trial' in (printed := capsys.readouterr().out)
    assert printed.splitlines()[-1].startswith('All ')


def test_a_check_lists_all_mistakes(tmp_path, capsys):
    path = tmp_path / 'wrong.py'
    path.write_text(
        f'_base_ = {FCN!r}\nmodel = dict(pretrained=None, backbone=dict(init_cfg=dict(type="Pretrained", '
        'checkpoint="none.pth")), decode_head=dict(in_channels=9))\n'
        'optim_wrapper = dict(paramwise_cfg=dict(layer_decay_rate=0.7))\n'
    )
    with pytest.raises(SystemExit) as ended:
        swap(str(path), '--check', '--json')
    assert ended.value.code
    report = json.loads(capsys.readouterr().out)
    failed = {name for name, found in report['checks'].items() if found}
    assert failed == {'optimizer settings', 'checkpoints', 'trial'}
    assert report['trial'] is None


def test_a_config_whose_trial_fails_is_not_written(tmp_path, monkeypatch):
    def fail(*_):
        raise TrialError('a loss is not finite')

    monkeypatch.setattr('addp_mm.swap.trial.try_swap', fail)
    with pytest.raises(SystemExit, match='error: a loss is not finite'):
        swap(FCN, '--backbone', 'addp_b', '--out', str(tmp_path / 'new.py'))
    assert list(tmp_path.iterdir()) == []
    swap(FCN, '--backbone', 'addp_b', '--out', str(tmp_path / 'new.py'), '--no-trial')
    assert [path.name for path in tmp_path.iterdir()] == ['new.py']


@pytest.mark.parametrize(
    'arguments, message',
    [
        (['mmdet::faster_rcnn/faster-rcnn_r50_fpn_1x_coc.py', '--backbone', 'addp_b'], 'did you mean faster_rcnn/'),
        ([FASTER, '--backbone', 'adp_b'], "no backbone 'adp_b'; did you mean addp_b"),
        (['none.py', '--backbone', 'addp_b'], 'config none.py does not exist'),
        ([FASTER, '--backbone', 'timm:swin_tini_patch4_window7_224'], 'did you mean swin_tiny_patch4_window7_224'),
        (['mmdet::cornernet/cornernet_hourglass104_8xb6-210e-mstest_coco.py', '--backbone', 'swin_t'], 'CornerHead'),
        (['mmpretrain::mae/mae_vit-base-p16_8xb512-amp-coslr-300e_in1k.py', '--backbone', 'swin_t'], 'MAE'),
    ],
)
def test_what_cannot_be_swapped_is_refused_in_one_line(arguments, message, tmp_path):
    with pytest.raises(SystemExit) as ended:
        swap(*arguments, '--out', str(tmp_path / 'new.py'))
    text = str(ended.value.code)
    assert text.startswith('error: ')
    assert message in text
    assert '\n' not in text
    assert list(tmp_path.iterdir()) == []


@pytest.mark.usefixtures('tiny_zoo')
def test_a_new_folder_is_made_and_named(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    swap(DEIT, '--backbone', 'addp_b', '--out', 'sub/new.py', '--no-trial')
    assert '--out sub/new.py: the folder sub does not exist and will be made' in capsys.readouterr().err
    swap(DEIT, '--backbone', 'addp_b', '--out', 'sub/new.py', '--no-trial', '--overwrite')
    assert 'will be made' not in capsys.readouterr().err


@pytest.mark.usefixtures('tiny_zoo')
def test_numbers_of_classes_that_differ_are_named_where_no_trial_is_possible(tmp_path, capsys):
    (tmp_path / 'own.py').write_text(f'_base_ = {DEIT!r}\nmodel = dict(head=dict(num_classes=10))\n')
    swap(str(tmp_path / 'own.py'), '--backbone', 'addp_b', '--out', str(tmp_path / 'new.py'))
    printed = capsys.readouterr().out
    assert 'no trial was possible' in printed
    assert 'model.head.num_classes=10, but data_preprocessor.num_classes=1000' in printed


def test_files_that_must_not_be_written(tmp_path):
    path = tmp_path / 'own.py'
    path.write_text(f'_base_ = {FCN!r}\n')
    for out, message in (
        (path, 'is the config itself'),
        (tmp_path / 'new.txt', 'a config file ends in .py, such as .*new.py'),
        (tmp_path, 'ends in .py'),
        (Path('/proc/new.py'), 'no file can be written in /proc'),
    ):
        with pytest.raises(SystemExit, match=message):
            swap(str(path), '--backbone', 'addp_b', '--out', str(out))
    other = tmp_path / 'other.py'
    other.write_text('x = 1')
    with pytest.raises(SystemExit, match='exists: give another name, or --overwrite'):
        swap(str(path), '--backbone', 'addp_b', '--out', str(other))
    assert other.read_text() == 'x = 1'
    swap(str(path), '--backbone', 'addp_b', '--out', str(other), '--overwrite', '--no-trial')
    assert "_base_ = 'own.py'" in other.read_text()


@pytest.mark.parametrize(
    'arguments, message',
    [
        ([], 'the following arguments are required: CONFIG. Give a config file'),
        ([FCN], 'required: --backbone, --out. The names of backbones are printed by: addp swap --list'),
        ([FCN, '--backbone', 'addp_b'], 'required: --out\n'),
        ([FCN, '--check', '--out', 'x.py'], '--check reads CONFIG as it is'),
    ],
)
def test_missing_arguments(arguments, message, capsys):
    with pytest.raises(SystemExit) as ended:
        swap(*arguments)
    assert ended.value.code == 2
    assert message in capsys.readouterr().err


def test_an_unreadable_config_is_named(tmp_path):
    path = tmp_path / 'own.py'
    path.write_text('model = dict(')
    with pytest.raises(SystemExit, match='error: config .*own.py, line 1: '):
        swap(str(path), '--backbone', 'addp_b', '--out', str(tmp_path / 'new.py'))


def test_the_list_of_backbones(capsys):
    swap('--list')
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines[1 : len(ZOO) + 1]] == list(ZOO)
    swap('--list', '--json')
    assert json.loads(capsys.readouterr().out)[0]['weights'] == 'hf://Changyao/ADDP/addp-vit-base-16.pth'
