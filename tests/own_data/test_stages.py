# Copyright (c) addp_mm contributors. Apache-2.0.
"""The configs of tools/pretrain_from_folder.py: sizes, changes of the user, few images."""

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


def _values(node):
    children = node.values() if isinstance(node, dict) else node if isinstance(node, list) else ()
    return [node] if not children else [value for child in children for value in _values(child)]


def _wrappers(cfg):
    parts = [part for part in cfg.optim_wrapper.values() if isinstance(part, dict) and 'optimizer' in part]
    return parts or [cfg.optim_wrapper]


@pytest.mark.parametrize('size', ['nano', 'small', 'base', 'large'])
@pytest.mark.parametrize('channels', [3, 5])
def test_every_size_builds(tmp_path, size, channels):
    from helpers.recipes import build_on_meta
    from mmengine.registry import init_default_scope

    from addp_mm.checks.unknown_arguments import check_config
    from addp_mm.own_data.fitting import fit_config
    from addp_mm.own_data.stages import build_configs

    configs = build_configs(request_of(tmp_path, size=size, channels=channels))
    init_default_scope('mmpretrain')
    tokens = (128 // (16 if size in ('base', 'large') else 8)) ** 2
    for stage, cfg in configs.items():
        own = cfg.own_data
        assert own.max_iters <= -(-own.max_passes * 98_000 // own.batch_size)
        cfg, fitted = fit_config(stage, cfg, dict(batch=own.batch_size // 4), processes=1)
        assert 'own_data' not in cfg
        assert cfg.train_cfg.max_iters == fitted['max_iters'] == 4 * own.max_iters == cfg.param_scheduler[-1].end
        assert 'max_iters' not in f'{list(_values(cfg.to_dict()))}'
        assert {wrapper.accumulative_counts for wrapper in _wrappers(cfg)} == {4}
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
    from addp_mm.own_data.fitting import fit_config
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
    assert tokenizer.own_data.max_iters == 7000
    assert tokenizer.train_dataloader.num_workers == 9
    assert tokenizer.model.quantize_from == 3
    trained, _ = fit_config('tokenizer', tokenizer, dict(batch=64), processes=1)
    assert trained.train_cfg.max_iters == 7000
    assert trained.model.restart_until == 2800  # 40 % of the iterations, as in the preset
    assert tokenizer.val_evaluator[-1].codebook_size == 512
    assert configs['predictor'].model.predictor.token_space.codebook_size == 512
    assert configs['predictor'].own_data.batch_size == 64
    trained, fitted = fit_config('addp', configs['addp'], {}, processes=1)
    assert (trained.train_dataloader.batch_size, fitted['accumulated']) == (5, 1)
    assert configs['addp'].model.neck.num_layers == 3
    assert configs['addp'].model.head.token_space.codebook_size == 512
    with pytest.raises(ConfigError, match='begin with the stage.*did you mean predictor'):
        options_by_stage(['predicter.max_iters=3'])
    with pytest.raises(ConfigError, match='addp: --cfg-options max_iter: .* did you mean max_iters'):
        build_configs(request_of(tmp_path, options={'addp': ['max_iter=3']}))
    with pytest.raises(ConfigError, match='needs a multiple of 8 px, such as 96 or 104'):
        build_configs(request_of(tmp_path, image_size=100))


def test_few_images_shorten_the_training(tmp_path):
    from addp_mm.own_data.stages import build_configs

    request = request_of(tmp_path)
    few = type(request.found)(**{**vars(request.found), 'count': 1000})
    own = build_configs(type(request)(**{**vars(request), 'found': few}))['predictor'].own_data
    assert own.max_iters == -(-1600 * 980 // 256)


def test_formulas_over_max_iters_become_numbers():
    from addp_mm.config.config_file import ConfigError
    from addp_mm.own_data.schedule import resolve_iterations

    cfg = dict(
        train_cfg=dict(max_iters='max_iters', val_interval='0.25 * max_iters'),
        hooks=[dict(type='EMAHook', momentum='40 / max_iters'), dict(name='max_iters_hook', interval=7)],
    )
    assert resolve_iterations(cfg, 4000) == dict(
        train_cfg=dict(max_iters=4000, val_interval=1000),
        hooks=[dict(type='EMAHook', momentum=0.01), dict(name='max_iters_hook', interval=7)],
    )
    # Schedulers need at least two iterations, an average at most half of the new value.
    short = resolve_iterations(cfg, 3)
    assert (short['train_cfg']['val_interval'], short['hooks'][0]['momentum']) == (2, 0.5)
    assert cfg['train_cfg']['max_iters'] == 'max_iters'
    with pytest.raises(ConfigError, match=r"quantize_from='max_iters // 4' is not a known formula"):
        resolve_iterations(dict(quantize_from='max_iters // 4'), 100)


def test_iterations_follow_train_cfg_if_the_user_sets_it(tmp_path):
    from addp_mm.own_data.fitting import fit_config
    from addp_mm.own_data.stages import build_configs, options_by_stage

    options = options_by_stage(['addp.train_cfg.max_iters=500', "addp.param_scheduler.0.end='0.2 * max_iters'"])
    cfg = build_configs(request_of(tmp_path, size='nano', options=options))['addp']
    trained, fitted = fit_config('addp', cfg, dict(batch=8), processes=1)
    assert (fitted['accumulated'], trained.train_cfg.max_iters, trained.param_scheduler[0].end) == (4, 500, 100)


def test_presets_keep_their_numbers():
    """Iterations and rates of the presets at their own number of steps."""
    from mmengine.config import Config

    from addp_mm.config.shipped import config_path
    from addp_mm.own_data.schedule import resolve_iterations

    def preset(name):
        cfg = Config.fromfile(config_path(f'_base_/own_data/{name}.py')).to_dict()
        return resolve_iterations(cfg, cfg['own_data']['max_iters'])

    nano, small, base = (preset(f'tokenizer_{size}') for size in ('nano', 'small', 'base'))
    assert (nano['model']['quantize_from'], nano['model']['restart_until'], nano['param_scheduler'][0]['end']) == (
        400,
        2800,
        200,
    )
    assert small['model']['schedule'] == dict(start=20000, alone=500, ramp=2000)
    assert small['custom_hooks'][-1]['momentum'] == 0.001
    assert base['custom_hooks'][-1]['momentum'] == 1e-4
    warm_up = {
        name: preset(name)['param_scheduler'][0]['end'] for name in ('predictor_nano', 'addp_small', 'addp_base')
    }
    assert warm_up == dict(predictor_nano=200, addp_small=3000, addp_base=5000)
