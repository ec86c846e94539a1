# Copyright (c) addp_mm contributors. Apache-2.0.
"""Parts of tools/pretrain_from_folder.py: progress, trial steps, loaders, sources, metrics."""

import json
from argparse import Namespace
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

ROOT = Path(__file__).parents[2]


def test_ends_are_predicted_from_the_log(tmp_path):
    from addp_mm.stages.progress import Clock, duration, training_seconds

    folder = tmp_path / '20260101' / 'vis_data'
    folder.mkdir(parents=True)
    records = [dict(iter=10, time=2.0, loss=5.0), dict(iter=20, time=1.0, loss=4.0), dict(PSNR=20.0, step=20)]
    (folder / 'scalars.json').write_text(''.join(json.dumps(r) + '\n' for r in records) + '{"iter": 3')
    clock = Clock(dict(tokenizer=0.0, predictor=100.0, addp=500.0))
    line = clock.line('predictor', tmp_path, 80)
    assert line.startswith('predictor: 20 of 80 iterations (25%), loss 4;')
    assert clock.all_left() == 560
    assert training_seconds(tmp_path) == 10 * 2.0 + 10 * 1.0
    assert [duration(seconds) for seconds in (9, 95, 3700)] == ['0:00:09', '0:01:35', '1:01:40']


def test_a_trial_step_with_a_perceptual_loss_has_the_weights_of_its_network(tmp_path):
    from addp_mm.own_data.trial_steps import Trial
    from addp_mm.registry import MODELS

    network = dict(
        type='addp_mm.ADDPViT',
        arch=dict(embed_dims=8, num_layers=1, num_heads=2),
        img_size=16,
        patch_size=8,
        out_indices=[0],
        out_type='featmap',
    )
    states = MODELS.build(network).state_dict()
    torch.save(states, tmp_path / 'vit.pth')
    network['init_cfg'] = dict(type='addp_mm.Pretrained', checkpoint=str(tmp_path / 'vit.pth'))
    tokenizer = dict(
        type='addp_mm.VQTokenizer',
        base_channels=32,
        channel_mults=[1, 1],
        num_res_blocks=1,
        codebook_size=8,
        init_cfg=dict(type='addp_mm.Pretrained', checkpoint='not/made/yet.safetensors'),
    )
    cfg = dict(
        default_scope='mmpretrain',
        optim_wrapper=dict(type='OptimWrapper', optimizer=dict(type='SGD', lr=0.1)),
        model=dict(
            type='addp_mm.TokenizerPretrain',
            tokenizer=tokenizer,
            data_preprocessor=dict(type='SelfSupDataPreprocessor', mean=[0.0] * 3, std=[255.0] * 3),
            perceptual=dict(type='addp_mm.PerceptualLoss', backbone=network),
        ),
    )
    trial = Trial(cfg, [3, 16, 16], torch.device('cpu'))
    assert trial.step(1) > 0
    loaded = trial.model.perceptual.network.state_dict()
    assert all(torch.equal(loaded[name], value) for name, value in states.items())


def find(source, tmp_path, **options):
    from addp_mm.own_data.images import dataset_cfg, find_images

    return find_images(
        dataset_cfg(str(source), tmp_path / 'images.index', 0.01),
        **{**dict(channels=None, value_range=None, changed='error'), **options},
    )


@pytest.mark.parametrize('kind, plain', [('eight bits', True), ('16 bits', False), ('array', False), ('pages', False)])
def test_three_channels_are_read_as_they_are_stored(tmp_path, kind, plain):
    from addp_mm.own_data.stages import Request, loading
    from addp_mm.registry import TRANSFORMS

    folder = tmp_path / 'images'
    folder.mkdir()
    values = np.random.default_rng(0).integers(0, 256, (20, 24, 3)).astype(np.uint8)
    if kind == '16 bits':
        values = values.astype(np.uint16) * 200 + 7
    for index in range(4):
        if kind == 'array':
            np.save(folder / f'{index}.npy', values)
        elif kind == 'pages':
            assert cv2.imwritemulti(str(folder / f'{index}.tiff'), [values[..., page] for page in range(3)])
        else:
            assert cv2.imwrite(str(folder / f'{index}.png'), values[..., ::-1])
    found = find(folder, tmp_path)
    assert (found.channels, found.plain) == (3, plain)
    load = TRANSFORMS.build(loading(Request(found, 16, 'nano', tmp_path)))
    name = next(path for path in folder.iterdir())
    image = load(dict(img_path=str(name)))['img'][..., ::-1]
    np.testing.assert_allclose(image, values * (255 / np.iinfo(values.dtype).max), rtol=1e-5)


def test_more_broken_images_may_be_allowed_later(tmp_path):
    from mmengine.config import Config

    from addp_mm.config.options import merge_options
    from addp_mm.own_data.images import Found, dataset_cfg
    from addp_mm.own_data.stages import Request, build_configs, changeable_options
    from addp_mm.own_data.work_dir import WorkDir
    from addp_mm.stages.stage import Stage

    stages = []
    for share in (0.01, 0.2):
        images = dataset_cfg(str(tmp_path / 'photos'), tmp_path / 'images.index', share)
        folder = WorkDir(tmp_path)
        folder.check_images(dict(images=images, channels=3))
        folder.claim(dict(images=images, channels=3))
        folder.close()
        found = Found(images, 1000, 'abc', 3, [0.4] * 3, [0.2] * 3, 300, 50)
        configs = build_configs(Request(found, 32, 'nano', tmp_path))
        stages.append({name: Stage(tmp_path, name, cfg.to_dict(), ['abc']) for name, cfg in configs.items()})
    begun, later = stages
    begun['tokenizer'].prepare(configs['tokenizer'], {})
    later['tokenizer'].check()
    cfg = Config.fromfile(begun['tokenizer'].config)
    merge_options(cfg, changeable_options(configs['tokenizer']))
    assert cfg.train_dataloader.dataset.max_broken_share == cfg.val_dataloader.dataset.max_broken_share == 0.2
    assert {name: stage.fingerprint for name, stage in begun.items()} == {
        name: stage.fingerprint for name, stage in later.items()
    }
    assert changeable_options(configs['tokenizer']) == [
        'train_dataloader.dataset.max_broken_share=0.2',
        'val_dataloader.dataset.max_broken_share=0.2',
    ]
    assert changeable_options(configs['predictor']) == []
    assert changeable_options(configs['addp']) == ['train_dataloader.dataset.max_broken_share=0.2']


def test_statistics_are_of_the_channels_that_are_trained(tmp_path):
    from addp_mm.datasets import DatasetError

    folder = tmp_path / 'images'
    folder.mkdir()
    values = np.random.default_rng(0).integers(0, 256, (6, 40, 50, 3)).astype(np.uint8)
    for index, value in enumerate(values):
        np.save(folder / f'{index}.npy', value)
    found = find(folder, tmp_path)
    unit = values / 255
    assert found.mean == pytest.approx(unit.mean((0, 1, 2)).tolist(), abs=1e-3)
    assert found.std == pytest.approx(unit.std((0, 1, 2)).tolist(), abs=2e-3)
    with pytest.raises(DatasetError, match='6 of 6 images cannot be read: .*3 channels found, 2 expected'):
        find(folder, tmp_path, channels=2)


def test_a_tar_beside_images_does_not_make_a_folder_of_shards(tmp_path):
    from addp_mm.own_data.images import dataset_cfg

    def kind(folder):
        return dataset_cfg(str(folder), folder / 'work/images.index', 0.01)['type']

    for name in (
        'shards/0.tar',
        'shards/0.json',
        'shards/.hidden/x',
        'shards/work/trial.log',
        'mixed/0.tar',
        'mixed/0.JPG',
        'deep/0.tar',
        'deep/cats/0.png',
        'images/0.png',
    ):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text('')
    assert kind(tmp_path / 'shards') == 'addp_mm.WebDatasetImages'
    assert {kind(tmp_path / name) for name in ('mixed', 'deep', 'images')} == {'addp_mm.ImageFiles'}


def test_an_array_with_gaps_is_broken_and_does_not_change_the_statistics(tmp_path):
    folder = tmp_path / 'images'
    folder.mkdir()
    for index in range(5):
        np.save(folder / f'{index}.npy', np.full((20, 20), np.nan if index == 2 else 3.0, np.float32))
    assert find(folder, tmp_path, value_range=(0, 12)).mean == [0.25]


def test_metrics_that_cannot_be_computed_are_refused_before_training(tmp_path):
    from addp_mm.config.config_file import ConfigError
    from addp_mm.errors import UserError
    from addp_mm.own_data.measure import check_extra_metrics, extra_metrics

    def asked(**options):
        return Namespace(**{**dict(fid_extractor=None, inception_weights=None, lpips_weights=None), **options})

    assert extra_metrics(asked()) == []
    nano = extra_metrics(asked(fid_extractor=str(ROOT / 'configs/_base_/evaluation/addp-vit-nano-p8_features.py')))
    check_extra_metrics(nano, 3, 64)
    check_extra_metrics(nano, 1, 64)
    with pytest.raises(
        ConfigError,
        match='(?s)ReconstructionFID cannot be measured on images of 5 channels and 64 px'
        '.*takes 3 channels.*Remove its option',
    ):
        check_extra_metrics(nano, 5, 64)
    for option in ('inception_weights', 'lpips_weights'):
        with pytest.raises(UserError):  # no such file, or no such package
            check_extra_metrics(extra_metrics(asked(**{option: str(tmp_path / 'none.pth')})), 3, 64)
    (tmp_path / 'empty.py').write_text('model = 1\n')
    with pytest.raises(ConfigError, match="empty.py has no 'extractor'"):
        extra_metrics(asked(fid_extractor=str(tmp_path / 'empty.py')))
