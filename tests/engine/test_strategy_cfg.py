# Copyright (c) addp_mm contributors. Apache-2.0.
"""A config's strategy is checked and completed before anything is built."""

from pathlib import Path

import pytest
from mmengine.config import Config

import addp_mm  # noqa: F401
from addp_mm.checks.unknown_arguments import check_config
from addp_mm.checks.weights import require_checkpoint
from addp_mm.config.config_file import ConfigError
from addp_mm.engine import strategy_cfg
from addp_mm.engine.runner_cfg import set_amp, set_resume
from addp_mm.engine.strategy_cfg import set_strategy

FRAGMENTS = Path(__file__).parents[2] / 'configs/_base_/strategies'


def config(strategy=None, launcher='pytorch', **changes) -> Config:
    return Config(
        dict(
            model=dict(type='ImageClassifier'),
            train_dataloader=dict(batch_size=8),
            launcher=launcher,
            strategy=strategy,
            optim_wrapper=dict(
                type='OptimWrapper',
                optimizer=dict(type='AdamW', lr=1e-3),
                clip_grad=dict(max_norm=3.0),
                accumulative_counts=4,
            ),
            **changes,
        )
    )


@pytest.fixture
def with_deepspeed(monkeypatch):
    monkeypatch.setattr(strategy_cfg, 'find_spec', lambda name: True)


@pytest.mark.parametrize('name', ['ddp', 'fsdp', 'deepspeed_zero1', 'deepspeed_zero2'])
def test_fragments_pass_as_bases(name, tmp_path, with_deepspeed):
    recipe = ''.join(f'{key} = {config()[key]!r}\n' for key in ('model', 'optim_wrapper', 'train_dataloader'))
    (tmp_path / 'recipe.py').write_text(f"default_scope = 'mmpretrain'\n{recipe}")
    (tmp_path / 'child.py').write_text(f"_base_ = ['./recipe.py', '{FRAGMENTS / name}.py']\n")
    cfg = Config.fromfile(tmp_path / 'child.py')
    cfg.launcher = 'slurm'
    check_config(cfg)
    set_strategy(cfg)
    assert cfg.runner_type == 'FlexibleRunner'


@pytest.mark.parametrize(
    'strategy, changes, words',
    [
        (dict(type='DDPStrategie'), {}, 'did you mean DDPStrategy'),
        (dict(model_wrapper=None), {}, 'strategy needs a type'),
        (dict(type='FSDPStrategy'), {}, 'write strategy.type=addp_mm.ShardedStrategy'),
        (dict(type='DeepSpeedStrategy'), {}, 'write strategy.type=addp_mm.ZeroStrategy'),
        (dict(type='DDPStrategy'), dict(launcher='none'), 'DDPStrategy trains on several.*tools/dist_train.sh'),
        (dict(type='SingleDeviceStrategy'), {}, 'each process trains alone'),
        (dict(type='DDPStrategy'), dict(runner_type='Runner'), "runner_type is 'Runner'"),
        (dict(type='DDPStrategy'), dict(model_wrapper_cfg=dict(type='X')), 'write it as strategy.model_wrapper'),
        (dict(type='DDPStrategy'), dict(sync_bn='torch'), 'write it as strategy.sync_bn'),
        (dict(type='DDPStrategy'), dict(activation_checkpointing=['neck']), 'strategy.checkpoint_units=True'),
        (dict(type='addp_mm.ShardedStrategy'), dict(custom_hooks=[dict(type='EMAHook')]), 'does not fit EMAHook'),
        (dict(type='addp_mm.ZeroStrategy', zero_optimization=dict(stage=3)), {}, 'takes stages 1 and 2'),
    ],
)
def test_strategies_that_do_not_fit_are_refused(strategy, changes, words, with_deepspeed):
    with pytest.raises(ConfigError, match=words):
        set_strategy(config(strategy, **changes))


@pytest.mark.parametrize('kind', ['Sharded', 'Zero'])
def test_the_tokenizer_is_not_trained_in_shards(kind, with_deepspeed):
    cfg = config(dict(type=f'addp_mm.{kind}Strategy'))
    cfg.model.type = 'addp_mm.TokenizerPretrain'
    with pytest.raises(ConfigError, match='writes codes into its own weights'):
        set_strategy(cfg)


def test_without_deepspeed_the_error_has_the_command_to_install_it(monkeypatch):
    monkeypatch.setattr(strategy_cfg, 'find_spec', lambda name: None)
    with pytest.raises(ConfigError, match='Install it:\n    pip install deepspeed'):
        set_strategy(config(dict(type='addp_mm.ZeroStrategy')))


def test_deepspeed_takes_over_clipping_accumulation_and_precision(with_deepspeed):
    cfg = config(dict(type='addp_mm.ZeroStrategy', zero_optimization=dict(stage=2)))
    set_amp(cfg, 'bfloat16')
    set_strategy(cfg)
    assert cfg.optim_wrapper == dict(type='DeepSpeedOptimWrapper', optimizer=dict(type='AdamW', lr=1e-3))
    assert cfg.strategy.gradient_clipping == 3.0
    assert cfg.strategy.gradient_accumulation_steps == 4
    assert cfg.strategy.train_micro_batch_size_per_gpu == 8
    assert cfg.strategy.config == dict(torch_autocast=dict(enabled=True, dtype='bfloat16'))
    again = Config(cfg.to_dict())  # the config in the work dir
    set_strategy(again)
    assert again.to_dict() == cfg.to_dict()


@pytest.mark.parametrize(
    'change, words',
    [
        (dict(clip_grad=dict(max_norm=1.0, norm_type=1)), 'Euclidean norm only'),
        (dict(type='AmpOptimWrapper', dtype='float16'), 'bfloat16'),
        (dict(type='Other'), 'optim_wrapper.type is Other'),
    ],
)
def test_deepspeed_refuses_unsupported_options(change, words, with_deepspeed):
    cfg = config(dict(type='addp_mm.ZeroStrategy'))
    cfg.optim_wrapper.update(change)
    with pytest.raises(ConfigError, match=words):
        set_strategy(cfg)


def test_a_test_and_a_config_without_strategy_keep_the_runner():
    cfg = config(dict(type='addp_mm.ShardedStrategy'), launcher='none')
    set_strategy(cfg, testing=True)
    assert 'strategy' not in cfg
    assert 'runner_type' not in cfg
    cfg = config(None, launcher='none')
    set_strategy(cfg)
    assert 'runner_type' not in cfg


def test_a_folder_of_deepspeed_resumes_deepspeed_only(tmp_path):
    folder = tmp_path / 'iter_4.pth'
    folder.mkdir()
    (folder / 'mp_rank_00_model_states.pt').touch()
    with pytest.raises(ConfigError, match=f'zero_to_fp32.py {tmp_path} WHOLE --tag iter_4.pth'):
        require_checkpoint(str(folder))
    with pytest.raises(ConfigError, match='shards of a DeepSpeed training'):
        set_resume(config(dict(type='addp_mm.ShardedStrategy')), str(folder))
    cfg = config(dict(type='addp_mm.ZeroStrategy'))
    set_resume(cfg, str(folder))
    assert cfg.resume
    assert cfg.load_from == str(folder)
