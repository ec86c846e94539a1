# Copyright (c) addp_mm contributors. Apache-2.0.
"""Every option takes effect, or is refused in one line that names the key that works."""

import re

import pytest
from mmengine.config import Config

from addp_mm.checks.argument_kinds import argument_kinds
from addp_mm.config.config_file import load_config
from addp_mm.config.options import merge_options
from addp_mm.errors import ConfigError

CLASSIFIER = 'addp-vit-nano-p8_ft_1xb32-fp32-300i_fashion-scenes-64px'


def at(cfg, key):
    for part in key.split('.'):
        cfg = cfg[int(part)] if part.isdigit() else cfg[part]
    return cfg


@pytest.mark.parametrize(
    'options, key, value',
    [
        (['work_dir=work_dirs/my dir'], 'work_dir', 'work_dirs/my dir'),
        (['work_dir=2024'], 'work_dir', '2024'),
        (['visualizer.name="my run 1"'], 'visualizer.name', 'my run 1'),
        (['visualizer.name=5'], 'visualizer.name', '5'),
        (['load_from=my,file.pth'], 'load_from', 'my,file.pth'),
        (['experiment_name=True'], 'experiment_name', 'True'),
        (['train_dataloader.dataset.data_prefix=2017'], 'train_dataloader.dataset.data_prefix', '2017'),
        (['optim_wrapper.clip_grad={"max_norm":1}'], 'optim_wrapper.clip_grad', {'max_norm': 1}),
        (['optim_wrapper.clip_grad.max_norm=1'], 'optim_wrapper.clip_grad.max_norm', 1),
        (['train_cfg.max_iters=1e3'], 'train_cfg.max_iters', 1000),
        (['optim_wrapper.optimizer.lr=1'], 'optim_wrapper.optimizer.lr', 1),
        (['optim_wrapper.optimizer.betas.0=0.5'], 'optim_wrapper.optimizer.betas', (0.5, 0.999)),
        (['val_evaluator.topk=1,5'], 'val_evaluator.topk', [1, 5]),
        (['default_hooks.checkpoint.rule=greater,less'], 'default_hooks.checkpoint.rule', ['greater', 'less']),
        (['default_hooks.checkpoint.save_best=accuracy/top1,accuracy/top5'], 'default_hooks.checkpoint.save_best',
         ['accuracy/top1', 'accuracy/top5']),
        (['custom_hooks=[dict(type=EMAHook,momentum=0.1)]', 'custom_hooks.0.momentum=0.2'], 'custom_hooks.0.momentum',
         0.2),
        (['train_dataloader.dataset.pipeline.1={"prob": 0.1}'], 'train_dataloader.dataset.pipeline.1.prob', 0.1),
        (['train_cfg.max_iters=3', 'train_cfg.max_iters=4'], 'train_cfg.max_iters', 4),
        (['param_scheduler=None'], 'param_scheduler', None),
        (['optim_wrapper.optimizer.type=SGD', 'optim_wrapper.optimizer._delete_=True'], 'optim_wrapper.optimizer',
         {'type': 'SGD'}),
        (['optim_wrapper.optimizer=dict(_delete_=True, type=SGD, lr=0.1)'], 'optim_wrapper.optimizer',
         {'type': 'SGD', 'lr': 0.1}),
        (['optim_wrapper.optimizer=dict(lr=0.5)'], 'optim_wrapper.optimizer.type', 'AdamW'),
        (['sync_bn=torch'], 'sync_bn', 'torch'),
        (['env_cfg.cudnn_benchmark=True'], 'env_cfg.cudnn_benchmark', True),
        (['test_dataloader.dataset.data_root=/x=1, b/'], 'test_dataloader.dataset.data_root', '/x=1, b/'),
        (['default_hooks.checkpoint.out_dir='], 'default_hooks.checkpoint.out_dir', ''),
        (['model.backbone.init_cfg=None'], 'model.backbone.init_cfg', None),
    ],
)  # fmt: skip
def test_an_option_takes_effect(options, key, value):
    assert at(load_config(CLASSIFIER, options, argument_kinds), key) == value


@pytest.mark.parametrize(
    'options, phrases',
    [
        (['data_root=/x'], ['train_dataloader.dataset.data_root, val_dataloader.dataset.data_root', 'a variable']),
        (['max_iters=2'], ['Write train_cfg.max_iters']),
        (['batch_size=2'], ['Write train_dataloader.batch_size, val_dataloader.batch_size']),
        (['lr=0.1'], ['Write optim_wrapper.optimizer.lr']),
        (['num_classes=3'], ['model.head.num_classes']),
        (['img_size=3'], ['Write model.backbone.img_size']),
        (['dataset_type=Foo'], ['train_dataloader.dataset.type']),
        (['train_pipeline.1.prob=3'], ['Write train_dataloader.dataset.pipeline.1.prob']),
        (['vis_backends.0.type=X'], ['Write visualizer.vis_backends.0.type']),
        (['optimizer.lr=0.2'], ['Write optim_wrapper.optimizer.lr']),
        (['backbone.patch_size=4'], ['Write model.backbone.patch_size']),
        (['checkpoint.interval=4'], ['Write default_hooks.checkpoint.interval']),
        (['custom_hooks.0.momentum=0.1'], ['the config has no custom_hooks', 'custom_hooks=[dict(type=…)]']),
        (['load_from.x=5'], ['load_from is None', "contains no 'x'"]),
        (['train_cfg.max_iters.x=5'], ["train_cfg.max_iters is 300, which contains no 'x'"]),
        (['default_scope.x=5'], ["default_scope is 'mmpretrain', which contains no 'x'"]),
        (['optim_wrapper.clip_grad=None', 'optim_wrapper.clip_grad.max_norm=1'],
         ['optim_wrapper.clip_grad is None', '{"max_norm": …}']),
        (['optim_wrapper.optimizer.lr=abc'], ['optimizer.lr=abc', 'must be a number, now 0.001']),
        (['optim_wrapper.optimizer.lr='], ['must be a number']),
        (['optim_wrapper.optimizer.eps=abc'], ['optim_wrapper.optimizer.eps must be a number']),
        (['model.backbone.drop_path_rate=x'], ['drop_path_rate must be a number']),
        (['default_hooks.checkpoint.max_keep_ckpts=x'], ['max_keep_ckpts must be a number']),
        (['train_dataloader.sampler.shuffle=no'], ['shuffle must be True or False, now True']),
        (['optim_wrapper.optimizer.amsgrad=abc'], ['amsgrad must be True or False']),
        (['resume=auto'], ['resume must be True or False', 'give --resume']),
        (['optim_wrapper.optimizer=SGD'], ['must be a dict', 'set its .type']),
        (['train_dataloader.dataset.pipeline.99.x=3'], ["is a list of 4; '99' is not an index"]),
        (['train_dataloader.dataset.pipeline.prob=0.1'], ['Write train_dataloader.dataset.pipeline.2.prob']),
        (['train_cfg.max_iters=None'], ['train_cfg.max_iters must be a number, now 300']),
        (['train_dataloader.dataset.pipeline.-1.x=3'], ["'-1' is not an index"]),
        (['train_dataloader.dataset.pipeline[0].type=X'], ['Write train_dataloader.dataset.pipeline.0.type=X']),
        (['key'], ['expected KEY=VALUE']),
        (['=value'], ['expected KEY=VALUE']),
        (['lr', '=', '1'], ['expected KEY=VALUE without spaces']),
        (['train_cfg.max_iters==2'], ['Write train_cfg.max_iters=2']),
        ([' train_cfg.max_iters =2'], ['Write train_cfg.max_iters=2']),
        (['train_cfg..max_iters=2'], ['Write train_cfg.max_iters=2']),
        (['train_cfg.max_iters=[2'], ['--cfg-options train_cfg.max_iters=[2', 'do not match']),
        (['optim_wrapper.clip_grad.max_norm=1', 'optim_wrapper.clip_grad=None'], ['the later', 'Give one of them']),
        (['train_cfg=3', 'train_cfg.max_iters=2'], ['train_cfg must be a dict', 'set its .type']),
        (['model.foo._delete_=True'], ['the config has no model.foo to delete']),
        (['env_cfg.deterministic=True'], ['env_cfg takes cudnn_benchmark, mp_cfg']),
        (['nonsense=3'], ["the config has no 'nonsense'"]),
        (['modle.backbone.patch_size=3'], ["no 'modle'", 'did you mean model']),
        (['cfg.x=3'], ["the config has no 'cfg'"]),
        (['custom_imports.imports=[no_such_module]'], ['Failed to import no_such_module']),
    ],
)  # fmt: skip
def test_an_option_is_refused(options, phrases):
    with pytest.raises(ConfigError) as error:
        load_config(CLASSIFIER, options, argument_kinds)
    message = str(error.value)
    assert '\n' not in message
    for phrase in phrases:
        assert phrase in message


@pytest.fixture
def users():
    return Config(
        dict(
            data_root='a/',
            depth=7,
            model=dict(type='X', scale='auto', width=1, data_preprocessor=dict(type='P', size=4)),
            data_preprocessor=dict(type='P', size=4),
            train_dataloader=dict(dataset=dict(data_root='a/images')),
            val_dataloader=dict(batch_size=1),
        )
    )


def test_only_the_named_place_changes():
    shared = dict(dataset=dict(root='a', pipeline=[dict(type='A', n=1)]))
    cfg = Config(dict(val_dataloader=shared, test_dataloader=shared))
    merge_options(cfg, ['val_dataloader.dataset.pipeline.0.n=2', 'val_dataloader.dataset.root=b'])
    assert cfg.val_dataloader.dataset == dict(root='b', pipeline=[dict(type='A', n=2)])
    assert cfg.test_dataloader.dataset == dict(root='a', pipeline=[dict(type='A', n=1)])


def test_a_variable_whose_value_was_changed_is_refused_too(users):
    with pytest.raises(ConfigError, match=r'Write train_dataloader\.dataset\.data_root'):
        merge_options(users, ['data_root=b/'])


def test_a_key_that_only_own_code_can_read_is_accepted_with_a_warning(users, capsys):
    merge_options(users, ['depth=8'])
    assert users.depth == 8
    assert capsys.readouterr().err.count('\n') == 1
    users.custom_imports = dict(imports=['mine'])
    merge_options(users, ['data_root=b/'])
    assert users.data_root == 'b/'
    assert re.match(r'warning: --cfg-options data_root: neither .* your own code', capsys.readouterr().err)


def test_the_preprocessor_of_the_model_is_named_where_it_hides_that_of_the_config(users):
    with pytest.raises(ConfigError, match=r'Write model\.data_preprocessor\.size'):
        merge_options(users, ['data_preprocessor.size=8'])
    users.model.pop('data_preprocessor')
    merge_options(users, ['data_preprocessor.size=8'])
    assert users.data_preprocessor.size == 8


@pytest.mark.parametrize('option', ['model.scale=2', 'model.width=auto', 'model.width=None', 'model.width=[1,2]'])
def test_values_of_another_type_are_accepted_where_they_may_be_right(users, option):
    merge_options(users, [option])
