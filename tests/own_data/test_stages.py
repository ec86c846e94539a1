# Copyright (c) addp_mm contributors. Apache-2.0.
"""The configs of tools/pretrain_from_folder.py: every size, options and configs of the user, few images."""

from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def request_of(tmp_path, **changes):
    from addp_mm.own_data.images import Found
    from addp_mm.own_data.stages import Request

    found = Found(
        dict(type='addp_mm.ImageFiles', root='photos'),
        100_000,
        'abc',
        changes.pop('channels', 3),
        [0.4] * 5,
        [0.2] * 5,
        300,
        50,
    )
    return Request(found, **{**dict(image_size=128, size='small', work_dir=tmp_path), **changes})


@pytest.mark.parametrize('size', ['nano', 'small', 'base', 'large'])
@pytest.mark.parametrize('channels', [3, 5])
def test_every_size_builds(tmp_path, size, channels):
    from helpers.recipes import build_on_meta
    from mmengine.registry import init_default_scope

    from addp_mm.checks.unknown_arguments import check_config
    from addp_mm.own_data.schedule import accumulate
    from addp_mm.own_data.stages import build_configs

    configs = build_configs(request_of(tmp_path, size=size, channels=channels))
    init_default_scope('mmpretrain')
    tokens = (128 // (16 if size in ('base', 'large') else 8)) ** 2
    for stage, cfg in configs.items():
        own = cfg.pop('own_data')
        assert own.max_iters == min(cfg.train_cfg.max_iters, -(-own.max_passes * 98_000 // own.batch_size))
        accumulate(cfg, own.batch_size // 4, 4)
        assert cfg.train_cfg.max_iters == 4 * own.max_iters == cfg.param_scheduler[-1].end
        check_config(cfg, needed=('model', 'train_dataloader', 'train_cfg', 'optim_wrapper'))
        model = build_on_meta(cfg)
        if stage == 'tokenizer':
            assert model.tokenizer.in_channels == channels
        elif stage == 'predictor':
            assert model.predictor.num_tokens == tokens
        else:
            assert model.in_channels == channels
            assert model.latent_size[0] ** 2 == tokens
            assert cfg.model.get('pixel_mean') == (None if channels == 3 else [0.4] * 5)


def test_options_and_configs_of_the_user_win(tmp_path):
    from addp_mm.config.config_file import ConfigError
    from addp_mm.own_data.stages import build_configs, options_by_stage

    (tmp_path / 'mine.py').write_text(
        'own_data = dict(max_iters=7000)\nmodel = dict(tokenizer=dict(codebook_size=512), quantize_from=3)\n'
        'train_dataloader = dict(num_workers=9)\n'
    )
    options = options_by_stage(
        ['predictor.batch_size=64', 'addp.train_dataloader.batch_size=5', 'addp.model.neck.num_layers=3']
    )
    request = request_of(tmp_path, configs=dict(tokenizer=str(tmp_path / 'mine.py')), options=options)
    configs = build_configs(request)
    tokenizer = configs['tokenizer']
    assert tokenizer.own_data.max_iters == tokenizer.train_cfg.max_iters == 7000
    assert tokenizer.train_dataloader.num_workers == 9
    assert tokenizer.model.quantize_from == 3
    assert tokenizer.model.restart_until == 2800  # 40 % of the steps, as in the preset
    assert tokenizer.val_evaluator[-1].codebook_size == 512
    assert configs['predictor'].model.predictor.token_space.codebook_size == 512
    assert configs['predictor'].own_data.batch_size == 64
    assert 'own_data' not in configs['addp']
    assert configs['addp'].model.neck.num_layers == 3
    assert configs['addp'].model.head.token_space.codebook_size == 512
    with pytest.raises(ConfigError, match='begin with the stage.*did you mean predictor'):
        options_by_stage(['predicter.max_iters=3'])
    with pytest.raises(ConfigError, match='takes multiples of 8 px, as 96 or 104'):
        build_configs(request_of(tmp_path, image_size=100))


def test_few_images_shorten_the_training(tmp_path):
    from addp_mm.own_data.stages import build_configs

    request = request_of(tmp_path)
    few = type(request.found)(**{**vars(request.found), 'count': 1000})
    own = build_configs(type(request)(**{**vars(request), 'found': few}))['predictor'].own_data
    assert own.max_iters == -(-1600 * 980 // 256)
