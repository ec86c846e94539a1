# Copyright (c) addp_mm contributors. Apache-2.0.
"""An argument that another package refuses is named by the section of the config."""

import pytest
from helpers.tiny_training import Numbers, build_runner
from mmengine.config import Config
from mmengine.hooks import Hook
from mmengine.registry import MODELS
from torch import nn

from addp_mm.engine.build_errors import name_sections
from addp_mm.errors import ConfigError

LAYER_DECAY = dict(
    optimizer=dict(type='SGD', lr=0.1),
    constructor='mmpretrain.LearningRateDecayOptimWrapperConstructor',
    paramwise_cfg=dict(layer_decay_rate=0.5),
)


@pytest.mark.parametrize(
    'settings, words',
    [
        (dict(optim_wrapper=dict(optimizer=dict(type='SGD', lr=-1.0))), 'optim_wrapper .*learning rate'),
        (
            dict(optim_wrapper=LAYER_DECAY),
            'optim_wrapper .*get_layer_depth.*set optim_wrapper.constructor=addp_mm.LayerDecay',
        ),
        (dict(schedules=[dict(type='LinearLR', begin=3, end=2)]), 'param_scheduler .*end should be'),
        (dict(checkpoint=dict(save_best='fid')), r'default_hooks \(CheckpointHook\) .*Cannot infer the rule'),
        (dict(custom_hooks=[dict(type='EMAHook', begin_iter=-1)]), r'custom_hooks \(EMAHook\) .*begin_iter'),
        (dict(custom_hooks=[dict(type='EMAHook', momentum=2.0)]), 'the hook EMAHook .*momentum'),
        (dict(custom_hooks=[dict(type='EMAHook', begin_iter=9)]), 'the hook EMAHook .*max_iters'),
    ],
)
def test_the_section_is_named(tmp_path, settings, words):
    import mmpretrain.engine  # noqa: F401

    with pytest.raises(ConfigError, match=f'config: {words}') as caught, name_sections():
        build_runner(tmp_path, 2, **settings).train()
    assert ' cannot be built: ' in str(caught.value)
    assert ', line ' in str(caught.value)


def test_a_metric_is_named(tmp_path):
    import mmdet.evaluation  # noqa: F401

    loader = dict(batch_size=2, dataset=Numbers(), sampler=dict(type='DefaultSampler', shuffle=False))
    validation = dict(val_dataloader=loader, val_cfg=dict())
    metric = dict(type='mmdet.CocoMetric', metric='boxes')
    with pytest.raises(ConfigError, match='config: val_evaluator cannot be built: .*but got boxes'), name_sections():
        build_runner(tmp_path, 2, val_evaluator=metric, **validation).train()


def test_a_loop_that_is_refused_is_named(tmp_path):
    with pytest.raises(ConfigError, match='config: train_cfg cannot be built: .*integer number'), name_sections():
        build_runner(tmp_path, 2.5).train()


class Outer(nn.Module):
    """A component that builds an inner one itself."""

    def __init__(self, layer, data_preprocessor=None):
        super().__init__()
        MODELS.build(layer)


def build(cfg):
    return MODELS.build(cfg.model)


def test_a_type_that_is_not_registered_is_named(tmp_path):
    MODELS.register_module(module=Outer, force=True)
    with pytest.raises(ConfigError) as caught, name_sections():
        build(Config(dict(model=dict(type='Outer', layer=dict(type='Outerr')))))
    where = "config: model.layer: type='Outerr' is not registered in mmengine::model"
    assert str(caught.value) == f'{where}; did you mean Outer?'
    with pytest.raises(ConfigError, match="type='Umbrella' is not registered in mmengine::hook"), name_sections():
        build_runner(tmp_path, 2, custom_hooks=[dict(type='Umbrella')])


def test_other_errors_keep_their_class(tmp_path):
    class Broken(Hook):
        def before_train_iter(self, runner, batch_idx, data_batch=None):
            raise ValueError('in the training')

    with pytest.raises(ValueError, match='in the training') as caught, name_sections():
        build_runner(tmp_path, 2, hooks=(Broken(),)).train()
    assert not isinstance(caught.value, ConfigError)

    class Full(Hook):
        def before_train(self, runner):
            raise OSError('no space left')

    with pytest.raises(OSError, match='no space left'), name_sections():
        build_runner(tmp_path, 2, hooks=(Full(),)).train()
