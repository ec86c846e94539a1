# Copyright (c) addp_mm contributors. Apache-2.0.
"""Options of the tools: repeated ones add up, impossible ones are refused in one line."""

import runpy
from pathlib import Path

import pytest
from mmengine.config import Config

from addp_mm.errors import ConfigError, UserError

ROOT = Path(__file__).parents[2]
CLASSIFIER = 'addp-vit-nano-p8_ft_1xb32-fp32-300i_fashion-scenes-64px'
REDRAW = ['c', 'w', '--samples', 'd', '--selection', 's', '--scores', 't', '--reward', 'r', '--out', 'o']
NO_VALIDATION = ['val_dataloader=None', 'val_cfg=None', 'val_evaluator=None']


def tool(name):
    return runpy.run_path(str(ROOT / name), run_name='tool')


@pytest.mark.slow
def test_repeated_options_count_and_validation_can_be_switched_off(run_tool, workplace):
    finished = run_tool(
        'train.py',
        'tiny.py',
        '--cfg-options',
        'work_dir=my dir, 1',
        'train_cfg.max_epochs=1',
        *NO_VALIDATION,
        '--cfg-options',
        'optim_wrapper.optimizer.lr=0.002',
        'optim_wrapper.clip_grad={"max_norm":1}',
        'visualizer=dict(type=Visualizer, name="a run, b")',
    )
    assert finished.status == 0, finished.output
    assert (workplace / 'my dir, 1/epoch_1.pth').is_file()
    cfg = Config.fromfile(workplace / 'my dir, 1/tiny.py')
    assert (cfg.train_cfg.max_epochs, cfg.optim_wrapper.optimizer.lr) == (1, 0.002)
    assert cfg.optim_wrapper.clip_grad == dict(max_norm=1)
    assert (cfg.visualizer.name, cfg.val_dataloader, cfg.work_dir) == ('a run, b', None, 'my dir, 1')
    assert 'Epoch(val)' not in finished.output


@pytest.mark.parametrize(
    'name, arguments, option, value',
    [
        ('train.py', ['x'], '--cfg-options', ['a=1', 'b=2', 'c=3']),
        ('test.py', ['x', 'y'], '--cfg-options', ['a=1', 'b=2', 'c=3']),
        ('analysis_tools/get_flops.py', ['x'], '--cfg-options', ['a=1', 'b=2', 'c=3']),
        ('benchmarks/step_time.py', ['x'], '--cfg-options', ['a=1', 'b=2', 'c=3']),
        ('inpaint.py', ['x', 'y', 'z', '--out', 'o', '--box', '0,0,4,4'], '--classes', ['1', '2', '3']),
        ('benchmark_backbones.py', [], '--backbones', ['a', 'b', 'c']),
        ('pretrain_from_folder.py', ['x', '--img-size', '32', '--work-dir', 'w'], '--cfg-options', ['a', 'b', 'c']),
        ('model_converters/export_weights.py', ['x', 'y'], '--drop', ['a', 'b', 'c']),
        ('model_converters/export_weights.py', ['x', 'y'], '--meta', ['a=1', 'b=2', 'c=3']),
        ('model_converters/vit_to_timm.py', ['x', 'y'], '--mean', [0.1, 0.2, 0.3]),
        ('model_converters/vit_to_timm.py', ['x', 'y'], '--std', [0.1, 0.2, 0.3]),
        ('evaluate_images.py', ['x', 'y'], '--metrics', ['fid', 'kid', 'prc']),
        ('analysis_tools/redraw_tokens.py', REDRAW, '--shares', [0.125, 0.25, 0.5]),
        ('dataset_converters/image_tiles.py', ['x', '--out', 'o'], '--only', ['a', 'b', 'c']),
        ('dataset_converters/image_tiles.py', ['x', '--out', 'o'], '--leave-out', ['a', 'b', 'c']),
    ],
)
def test_a_repeated_option_adds_its_values(name, arguments, option, value):
    first, *rest = map(str, value)
    args = tool(f'tools/{name}')['parse_args']([*arguments, option, first, option, *rest])
    assert getattr(args, option.strip('-').replace('-', '_')) == value
    # the default of the parser did not change
    again = tool(f'tools/{name}')['parse_args']([*arguments, option, first])
    assert getattr(again, option.strip('-').replace('-', '_')) == value[:1]


def test_every_option_with_several_values_adds_them():
    lists = []
    for path in sorted([*(ROOT / 'tools').rglob('*.py'), *(ROOT / '.dev').rglob('*.py')]):
        for call in path.read_text().split('add_argument(')[1:]:
            call = call.split('add_argument')[0]
            if call.lstrip().startswith("'--") and ("nargs='+'" in call or "nargs='*'" in call):
                lists.append((path.name, "action='extend'" in call))
    assert len(lists) >= 7
    assert all(extends for _, extends in lists), lists


@pytest.mark.parametrize(
    'name, arguments, phrase',
    [
        ('train.py', ['x', '--seed', '-1'], '--seed: -1 must be from 0 to 4294967295'),
        ('train.py', ['x', '--seed', '4294967296'], '--seed: 4294967296 must be from 0 to'),
        ('test.py', ['x', 'y', '--seed', 'a'], "--seed: invalid int value: 'a'"),
        ('train.py', [], 'required: config. Give a config file, or the name of a shipped config: addp list'),
        ('generate.py', ['--out', 'x'], 'addp list prints the names'),
        ('generate.py', ['x', 'y', '--out', 'o', '--temperature', '-1'], '--temperature: -1 must be at least 0'),
        ('generate.py', ['x', 'y', '--out', 'o', '--top-p', '1.5'], '--top-p: 1.5 must be from 0 to 1'),
        ('benchmarks/step_time.py', ['x', '--seed', '-1'], '--seed: -1 must be'),
        ('benchmark_backbones.py', ['--jobs', '0'], '--jobs: 0 must be at least 1'),
        ('benchmark_backbones.py', ['--seeds', '0', '-1'], '--seeds: -1 must be from 0 to'),
        (
            'analysis_tools/search_schedule.py',
            ['x', 'y', 'z', '--steps', '8', '--out', 'o', '--trials', '0'],
            '--trials: 0 must be at least 1',
        ),
        ('evaluate_images.py', ['x', 'y', '--img-size', '0'], '--img-size: 0 must be at least 1'),
        ('evaluate_images.py', ['x', 'y', '--batch-size', '-2'], '--batch-size: -2 must be'),
        ('analysis_tools/redraw_tokens.py', [*REDRAW, '--shares', '1/0'], '--shares: 1/0 must be a share above 0'),
        ('analysis_tools/redraw_tokens.py', [*REDRAW, '--shares', '9/8'], '--shares: 9/8 must be a share above 0'),
        ('analysis_tools/target_entropy.py', ['x', 'y', 'z', '--levels', '0'], '--levels: 0 must be at least 1'),
        ('analysis_tools/target_entropy.py', ['x', 'y', 'z', '--num-images', '0'], '--num-images: 0 must be'),
        ('dataset_converters/tokenize_images.py', ['x', 'y', 'z', '--num-workers', '-1'], '--num-workers: -1 must be'),
        ('dataset_converters/tokenize_images.py', ['x', 'y', 'z', '--seed', '-1'], '--seed: -1 must be at least 0'),
        ('dataset_converters/tokenize_images.py', ['x', 'y', 'z', '--max-broken-share', '2'], 'from 0 to 1'),
        ('dataset_converters/tokenize_images.py', ['x', 'y', 'z', '--save-seconds', '-1'], 'at least 0'),
        ('dataset_converters/image_tiles.py', ['x', '--out', 'o', '--tile', '0'], '--tile: 0 must be at least 1'),
        ('dataset_converters/fashion_scenes.py', ['x', '--num-workers', '0'], '--num-workers: 0 must be at least 1'),
        ('dataset_converters/fashion_scenes.py', ['x', '--train', '-1'], '--train: -1 must be at least 0'),
        ('model_converters/vit.py', ['x', 'y', '--num-heads', '0'], '--num-heads: 0 must be at least 1'),
        ('model_converters/vit.py', ['x', 'y', '--img-size', '0', '8'], '--img-size: 0 must be at least 1'),
        ('model_converters/mage.py', ['x', 'y', '--decoder-num-heads', '-1'], '--decoder-num-heads: -1 must be'),
        ('model_converters/published_addp.py', ['x', 'y', '--predictor-num-heads', '0'], '0 must be at least 1'),
        ('model_converters/vqgan.py', ['x', 'y', '--num-groups', '0'], '--num-groups: 0 must be at least 1'),
        ('model_converters/vqgan.py', ['x', 'y', '--input-range', '0', 'nan'], '--input-range: nan must be finite'),
    ],
)
def test_impossible_values_are_refused_with_the_option(capsys, name, arguments, phrase):
    with pytest.raises(SystemExit) as exit_:
        tool(f'tools/{name}')['parse_args'](arguments)
    assert exit_.value.code == 2
    assert phrase in capsys.readouterr().err.splitlines()[-1]


@pytest.mark.parametrize(
    'arguments, phrases',
    [
        (['--cfg-options', 'work_dir=a', '--work-dir', 'b'], ['work_dir=a: --work-dir replaces it']),
        (['--cfg-options', 'randomness.seed=1', '--seed', '2'], ['--seed replaces it']),
        (['--cfg-options', 'launcher=pytorch'], ['--launcher replaces it']),
        (['--cfg-options', 'load_from=x.pth', '--resume', 'y.pth'], ['--resume replaces it']),
        (['--cfg-options', 'val_dataloader=None'], ['val_dataloader=None, but', ' '.join(NO_VALIDATION)]),
        (['--cfg-options', 'val_cfg=None', 'val_evaluator=None'], ['val_cfg=None and val_evaluator=None, but']),
        (['--cfg-options', 'test_evaluator=None'], ['test_dataloader=None test_cfg=None test_evaluator=None']),
        (['--cfg-options', 'train_cfg.val_interval=0'], ['train_cfg.val_interval', ' '.join(NO_VALIDATION)]),
        (['--cfg-options', 'train_cfg.val_interval=-1'], ['train_cfg.val_interval', ' '.join(NO_VALIDATION)]),
        (['--cfg-options', 'train_cfg.max_iter=5'], ['did you mean max_iters']),
        (['--cfg-options', 'model=None'], ["'model' is missing"]),
        (['--cfg-options', 'data_root=/nonexistent/', 'train_cfg.max_iters=1'], ['train_dataloader.dataset.data_root']),
        (['--work-dir', '/proc/x'], ['work dir /proc/x', 'no file can be written']),
        (['--resume', 'nothing.pth'], ['nothing.pth does not exist']),
    ],
)  # fmt: skip
def test_train_refuses_in_one_line(tmp_path, monkeypatch, arguments, phrases):
    monkeypatch.chdir(tmp_path)
    train = tool('tools/train.py')
    with pytest.raises(ConfigError) as error:
        train['prepare'](train['parse_args']([CLASSIFIER, *arguments]))
    message = str(error.value)
    assert '\n' not in message
    for phrase in phrases:
        assert phrase in message
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize('option', ['load_from=x.pth', 'data_root=/nonexistent/'])
def test_a_test_refuses_options_without_effect(option):
    test = tool('tools/test.py')
    with pytest.raises(ConfigError, match='CHECKPOINT replaces it|test_dataloader.dataset.data_root'):
        test['prepare'](test['parse_args']([CLASSIFIER, 'weights.pth', '--cfg-options', option]))


def test_resume_may_start_from_weights(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    train = tool('tools/train.py')
    with pytest.raises(UserError, match='load_from.*nothing.pth'):  # not refused, but used
        train['prepare'](train['parse_args']([CLASSIFIER, '--cfg-options', 'load_from=nothing.pth', '--resume']))


def test_values_outside_of_a_range_that_switch_something_off_are_accepted(tmp_path, monkeypatch):
    from addp_mm.checks.config_numbers import check_numbers
    from addp_mm.checks.config_sections import check_sections
    from addp_mm.config.config_file import load_config

    cfg = load_config(CLASSIFIER, [*NO_VALIDATION, 'train_cfg.val_interval=-1', 'default_hooks.checkpoint.interval=-1'])
    check_sections(cfg)
    check_numbers(cfg)
