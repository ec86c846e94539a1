# Copyright (c) addp_mm contributors. Apache-2.0.
"""A config in mmengine's pure Python style has classes instead of names. The tools accept both."""

import os

import pytest

import addp_mm  # noqa: F401  # before the packages: they need its mmcv._ext
from addp_mm.checks.datasets import check_datasets
from addp_mm.checks.unknown_arguments import check_config
from addp_mm.checks.weights import require_weights
from addp_mm.config.config_file import ConfigError, load_config
from addp_mm.config.type_names import type_name
from addp_mm.datasets import DatasetError
from addp_mm.engine.added_hooks import add_test_hooks
from addp_mm.engine.runner_cfg import set_amp, set_visualization
from addp_mm.engine.strategy_cfg import set_strategy

pytestmark = pytest.mark.slow
CONFIG = """
from mmengine._strategy import FSDPStrategy
from mmengine.hooks import EMAHook
from mmengine.model import PretrainedInit
from mmengine.optim import OptimWrapper
from mmengine.visualization import TensorboardVisBackend, Visualizer
from mmpretrain.datasets import CustomDataset
from mmpretrain.models import ImageClassifier
from torch.optim import AdamW

from addp_mm.engine.hooks import PreflightHook
from addp_mm.engine.strategies import ShardedStrategy
from addp_mm.models.backbones import ADDPViT

default_scope = 'mmpretrain'
model = dict(type=ImageClassifier, backbone=dict(
    type=ADDPViT, arch='tiny', init_cfg=dict(type=PretrainedInit, checkpoint='some.pth')))
optim_wrapper = dict(type=OptimWrapper, optimizer=dict(type=AdamW, lr=1e-3))
train_dataloader = dict(batch_size=1, dataset=dict(type=CustomDataset, data_root='no_such_folder', data_prefix='train'))
visualizer = dict(type=Visualizer, vis_backends=[dict(type=TensorboardVisBackend)])
custom_hooks = [dict(type=EMAHook), dict(type=PreflightHook)]
strategies = [dict(type=FSDPStrategy), dict(type=ShardedStrategy)]
"""


@pytest.fixture
def cfg(tmp_path):
    (tmp_path / 'pure.py').write_text(CONFIG)
    return load_config(str(tmp_path / 'pure.py'))


def test_it_passes_and_is_completed(cfg):
    check_config(cfg)
    require_weights(cfg)
    set_amp(cfg, 'bfloat16')
    assert cfg.optim_wrapper.type == 'AmpOptimWrapper'
    set_visualization(cfg, 'images', testing=True)
    assert cfg.visualizer.type == 'mmpretrain.UniversalVisualizer'
    assert len(cfg.visualizer.vis_backends) == 1
    assert cfg.default_hooks.visualization == dict(type='addp_mm.DrawnImagesHook', out_dir=os.path.abspath('images'))
    add_test_hooks(cfg)
    assert [type_name(hook.type) for hook in cfg.custom_hooks] == ['EMAHook', 'PreflightHook']


def test_what_is_refused_by_name_is_refused_as_a_class(cfg):
    with pytest.raises(DatasetError, match='no_such_folder'):
        check_datasets(cfg, 'train_dataloader')
    cfg.launcher = 'pytorch'
    words_of_each = ('write strategy.type=addp_mm.Sharded', 'does not fit EMAHook')
    for strategy, words in zip(cfg.strategies, words_of_each, strict=True):
        cfg.strategy = strategy
        with pytest.raises(ConfigError, match=words):
            set_strategy(cfg)
    cfg.optim_wrapper.type = type(cfg)
    with pytest.raises(ConfigError, match='optim_wrapper.type is Config$'):
        set_amp(cfg, 'bfloat16')
