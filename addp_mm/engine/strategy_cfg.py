# Copyright (c) addp_mm contributors. Apache-2.0.
"""Check the config's ``strategy``, and complete the config for FlexibleRunner."""

from importlib.util import find_spec

from mmengine.config import Config
from mmengine.registry import STRATEGIES

from addp_mm.config.type_names import type_name
from addp_mm.errors import ConfigError, suggest

SHARDED, ZERO = 'addp_mm.ShardedStrategy', 'addp_mm.ZeroStrategy'
_OWN = {'FSDPStrategy': SHARDED, 'DeepSpeedStrategy': ZERO}
_WRITING = ('TokenizerPretrain', 'VQGANPretrain')
_START = 'Start it by tools/dist_train.sh, tools/slurm_train.sh or torchrun with --launcher'
# Top-level keys that Runner reads and FlexibleRunner does not.
_RUNNER_KEYS = {
    'model_wrapper_cfg': 'write it as strategy.model_wrapper',
    'sync_bn': 'write it as strategy.sync_bn, an option of DDPStrategy',
    'activation_checkpointing': f'use strategy.checkpoint_units=True of {SHARDED}, or with_cp=True of the backbone',
    'find_unused_parameters': 'write it into strategy.model_wrapper',
}


def set_strategy(cfg: Config, testing: bool = False) -> None:
    """Check a config's ``strategy`` and complete the config for it.

    A config without a strategy is not changed. A test needs no strategy: checkpoints contain whole
    weights, and the Runner distributes the data itself.

    Args:
        cfg: The config, with ``launcher``.
        testing: Whether the model is tested, not trained. Defaults to False.

    Raises:
        ConfigError: The strategy does not exist, does not fit the launcher, the model or another
            key of the config, or needs a package that is not installed.
    """
    strategy = cfg.get('strategy')
    if testing or not strategy:
        cfg.pop('strategy', None)
        return
    name = _check_type(strategy)
    if cfg.get('runner_type', 'FlexibleRunner') != 'FlexibleRunner':
        raise ConfigError(
            f'config: only FlexibleRunner reads strategy, and runner_type is {cfg.runner_type!r}; remove one of them'
        )
    for key, advice in _RUNNER_KEYS.items():
        if cfg.get(key):
            raise ConfigError(
                f'config: with a strategy {key!r} has no effect; {advice}, or remove the strategy '
                '(--cfg-options strategy=None)'
            )
    single = name == 'SingleDeviceStrategy'
    if single != (cfg.launcher == 'none'):
        raise ConfigError(
            'with strategy SingleDeviceStrategy each process trains alone; remove --launcher or the strategy'
            if single
            else f'strategy {name} trains on several processes, and '
            f'--launcher is none. {_START}, or remove the strategy (--cfg-options strategy=None)'
        )
    if name in ('ShardedStrategy', 'ZeroStrategy') and _kind(cfg.model) in _WRITING:
        raise ConfigError(
            f'addp_mm.{name} does not fit addp_mm.{_kind(cfg.model)}, which writes codes into its own '
            'weights; train the tokenizer with DDPStrategy or without a strategy'
        )
    if name == 'ShardedStrategy':
        _check_sharded(cfg)
    elif name == 'ZeroStrategy':
        _set_zero(cfg)
    cfg.runner_type = 'FlexibleRunner'


def _check_type(strategy: dict) -> str:
    """Name of the strategy's class."""
    kind = strategy.get('type')
    if kind is None:
        raise ConfigError('config: strategy needs a type, such as DDPStrategy, ' + ', '.join(_OWN.values()))
    name = type_name(kind)
    if name in _OWN:
        raise ConfigError(
            f'strategy {name} has faults that {_OWN[name]} fixes (docs/cluster.md names them); write '
            f'strategy.type={_OWN[name]}, which takes the same arguments'
        )
    found = kind if isinstance(kind, type) else STRATEGIES.get(kind)
    if found is None:
        known = [*STRATEGIES.module_dict, *_OWN.values()]
        raise ConfigError(f'config: there is no strategy {kind!r}{suggest(kind, known)}')
    return found.__name__


def _kind(node: dict) -> str:
    return type_name(node.get('type'))


def _check_sharded(cfg: Config) -> None:
    for hook in cfg.get('custom_hooks') or []:
        if _kind(hook) == 'EMAHook':
            raise ConfigError(
                f'{SHARDED} does not fit EMAHook, which copies the weights of one process; remove the hook '
                'or train with DDPStrategy'
            )


def _set_zero(cfg: Config) -> None:
    """Move the options of OptimWrapper that DeepSpeed implements to DeepSpeed's keys."""
    if find_spec('deepspeed') is None:
        raise ConfigError(f'{ZERO} needs DeepSpeed, which is not installed. Install it:\n    pip install deepspeed')
    strategy, wrapper = cfg.strategy, cfg.optim_wrapper
    if ((strategy.get('zero_optimization') or {}).get('stage') or 0) > 2:
        raise ConfigError(f'{ZERO} takes stages 1 and 2; to shard the weights too, use {SHARDED}')
    strategy.setdefault('train_micro_batch_size_per_gpu', cfg.train_dataloader.get('batch_size', 1))
    kind = _kind(wrapper) or 'OptimWrapper'
    if kind == 'DeepSpeedOptimWrapper':
        return
    if kind not in ('OptimWrapper', 'AmpOptimWrapper'):
        raise ConfigError(f'{ZERO} replaces OptimWrapper and AmpOptimWrapper; optim_wrapper.type is {kind}')
    clip = wrapper.pop('clip_grad', None)
    if clip and (
        set(clip) - {'max_norm', 'norm_type', 'type'}
        or clip.get('norm_type', 2) != 2
        or clip.get('type', 'norm') != 'norm'
    ):
        raise ConfigError(f'{ZERO} clips by the Euclidean norm only; optim_wrapper.clip_grad is {dict(clip)}')
    if clip:
        strategy.setdefault('gradient_clipping', clip['max_norm'])
    strategy.setdefault('gradient_accumulation_steps', wrapper.pop('accumulative_counts', 1))
    dtype = wrapper.pop('dtype', None) or 'float16'
    wrapper.pop('loss_scale', None)
    if kind == 'AmpOptimWrapper':
        if dtype != 'bfloat16':
            raise ConfigError(
                f'{ZERO} runs mixed precision in bfloat16 (--amp bfloat16); optim_wrapper.dtype is {dtype}'
            )
        # DeepSpeed's own bf16 converts the whole model, with the frozen tokenizer and norms
        config = dict(strategy.get('config') or {})
        strategy.config = dict(config, torch_autocast=dict(enabled=True, dtype='bfloat16'))
    wrapper.type = 'DeepSpeedOptimWrapper'
