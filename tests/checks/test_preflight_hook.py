# Copyright (c) addp_mm contributors. Apache-2.0.
"""The preflight hook: a checkpoint that does not fit, and faults of a built runner."""

import logging
from types import SimpleNamespace

import pytest
import torch
from mmengine.dataset import InfiniteSampler
from mmengine.hooks import CheckpointHook
from mmengine.optim import OptimWrapper, OptimWrapperDict
from torch import distributed as dist
from torch import nn
from torch.distributed.fsdp import FullyShardedDataParallel
from torch.distributed.fsdp.wrap import ModuleWrapPolicy
from torch.optim import SGD
from torch.utils.data import DataLoader

from addp_mm.checkpoints.errors import CheckpointError
from addp_mm.checks.before_training import (
    check_number_of_batches,
    check_number_of_classes,
    warn_about_checkpoint_interval,
)
from addp_mm.checks.preflight_error import PreflightError
from addp_mm.checks.save_best import check_save_best
from addp_mm.engine.hooks import PreflightHook


class Head(nn.Module):
    """Like the box and mask heads of a detector, whose number of outputs is that of the classes."""

    def __init__(self, num_classes: int, width: int) -> None:
        super().__init__()
        self.num_classes = num_classes
        self.hidden_fc = nn.Linear(8, width)
        self.norm = nn.LayerNorm(width)
        self.depthwise = nn.Conv2d(width, width, 3, groups=width)
        self.fc_cls = nn.Linear(width, num_classes + 1)
        self.fc_reg = nn.Linear(width, 4 * num_classes)
        self.conv_logits = nn.Conv2d(width, num_classes, 1)


def detector(num_classes: int = 5, width: int = 16, embed: int = 8) -> nn.Module:
    return nn.ModuleDict(dict(backbone=nn.Linear(3, embed), roi_head=Head(num_classes, width)))


def check(model, checkpoint, testing=False):
    runner = SimpleNamespace(_load_from='other.pth', _resume=False, model=model, logger=logging.getLogger('preflight'))
    PreflightHook(testing).after_load_checkpoint(runner, dict(state_dict=checkpoint.state_dict()))


def test_only_classifiers_may_have_another_number_of_classes(caplog):
    check(detector(5), detector(3))
    warning = caplog.messages[-1]
    assert 'another number of classes' in warning
    assert warning.count('roi_head.') == 6
    for name in ('fc_cls', 'fc_reg', 'conv_logits'):
        assert f'roi_head.{name}.weight' in warning
        assert f'roi_head.{name}.bias' in warning
    with pytest.raises(CheckpointError, match='fc_cls.weight is .4, 16. in the checkpoint and .6, 16. in the model'):
        check(detector(5), detector(3), testing=True)


@pytest.mark.parametrize('other', [dict(width=32), dict(embed=4), dict(num_classes=3, width=32)])
def test_another_width_is_refused_with_a_remedy(other):
    with pytest.raises(CheckpointError, match=r"another width or layout.*addp_mm\.Pretrained.*prefix='backbone\.'"):
        check(detector(), detector(**other))


@pytest.mark.parametrize(
    'layer, key', [('norm', 'norm.weight'), ('hidden_fc', 'hidden_fc.weight'), ('depthwise', 'depthwise.weight')]
)
def test_hidden_layers_of_a_head_are_not_classifiers(layer, key):
    model, checkpoint = detector(), detector()
    setattr(checkpoint['roi_head'], layer, getattr(detector(width=32)['roi_head'], layer))
    with pytest.raises(CheckpointError, match=f'roi_head.{key} is'):
        check(model, checkpoint)


def test_outputs_without_classes_are_not_classifiers():
    def plain(outputs):
        return nn.ModuleDict(dict(backbone=nn.Linear(3, 4), head=nn.ModuleDict(dict(fc=nn.Linear(4, outputs)))))

    with pytest.raises(CheckpointError, match='head.fc.weight'):
        check(plain(8), plain(6))


@pytest.mark.parametrize('parts', [False, True])
@pytest.mark.parametrize(
    'hook, interval',
    [
        (dict(interval=3, by_epoch=False), 4),
        (dict(interval=4, by_epoch=False), None),
        (dict(interval=3, by_epoch=True), None),
        (dict(interval=-1, by_epoch=False), None),
    ],
)
def test_checkpoints_within_an_optimizer_step_cause_a_warning(hook, interval, parts, caplog):
    wrapper = OptimWrapper(SGD(nn.Linear(1, 1).parameters(), lr=1.0), accumulative_counts=2)
    runner = SimpleNamespace(
        hooks=[CheckpointHook(**hook)],
        logger=logging.getLogger('preflight'),
        optim_wrapper=OptimWrapperDict(part=wrapper) if parts else wrapper,
    )
    warn_about_checkpoint_interval(runner)
    wanted = [] if interval is None else [f'checkpoint.interval={interval}, or another multiple of 2']
    assert len(caplog.messages) == len(wanted)
    assert all(words in caplog.text for words in wanted)


def runner_with(dataset=None, loader=None, save_best=None, prefixes=()):
    """The attributes of a runner that the checks before training use."""
    loader = SimpleNamespace(dataset=dataset) if loader is None else loader  # a loader without a batch is false
    evaluator = SimpleNamespace(metrics=[SimpleNamespace(prefix=prefix) for prefix in prefixes])
    return SimpleNamespace(
        train_loop=SimpleNamespace(dataloader=loader),
        val_loop=SimpleNamespace(evaluator=evaluator),
        hooks=[CheckpointHook(save_best=save_best)],
        param_schedulers=None,
    )


def test_a_training_without_a_batch_is_refused():
    images = list(range(16))
    with pytest.raises(PreflightError, match='16 images .* batch_size=100.*drop_last=False'):
        check_number_of_batches(runner_with(loader=DataLoader(images, 100, drop_last=True)))
    for loader in (
        DataLoader(images, 100),
        DataLoader(images, 16, drop_last=True),
        DataLoader(images, 100, sampler=InfiniteSampler(images), drop_last=True),
    ):
        check_number_of_batches(runner_with(loader=loader))


def test_a_head_of_fewer_classes_than_the_data_is_refused():
    names = ('ant', 'bee', 'cow', 'dog')
    data = SimpleNamespace(metainfo=dict(classes=names))
    with pytest.raises(PreflightError, match=r'4 classes \(ant, .*model.roi_head has only 2.*roi_head.num_classes=4'):
        check_number_of_classes(runner_with(data), detector(2))
    panoptic = SimpleNamespace(metainfo=dict(classes=names, thing_classes=names[:2]))
    for dataset, classes in ((data, 4), (data, 9), (data, 1), (panoptic, 2), (object(), 2)):
        check_number_of_classes(runner_with(dataset), detector(classes))
    borders = detector(2)
    borders.roi_head.__class__ = type('STDCHead', (Head,), {})  # its two classes are those of borders
    check_number_of_classes(runner_with(data), borders)


def test_save_best_must_be_a_metric_of_the_evaluator():
    for wrong in ('bbox_mAP', 'acc/top1', ['coco/bbox_mAP', 'mAP']):
        with pytest.raises(PreflightError, match=r'save_best=.* called coco/…'):
            check_save_best(runner_with(save_best=wrong, prefixes=['coco']))
    for right, prefixes in (('auto', ['coco']), ('coco/bbox_mAP', ['coco', 'fid']), (None, ['coco']), ('mIoU', [None])):
        check_save_best(runner_with(save_best=right, prefixes=prefixes))


class Renaming(nn.Module):
    """Renames a key of old checkpoints and resizes a table when it loads."""

    def __init__(self, length: int) -> None:
        super().__init__()
        self.positions = nn.Parameter(torch.zeros(length))

    def _load_from_state_dict(self, state_dict, prefix, *args):
        old = state_dict.pop(f'{prefix}table', None)
        if old is not None:
            state_dict[f'{prefix}positions'] = old.mean().expand(len(self.positions))
        super()._load_from_state_dict(state_dict, prefix, *args)


def test_weights_that_a_module_adapts_are_not_a_difference():
    old = nn.Module()
    old.table = nn.Parameter(torch.ones(3))
    check(nn.ModuleDict(dict(part=Renaming(5))), nn.ModuleDict(dict(part=old)), testing=True)
    with pytest.raises(CheckpointError, match=r'part.positions is \[3\] in the checkpoint and \[5\] in the model'):
        check(nn.ModuleDict(dict(part=Renaming(5))), nn.ModuleDict(dict(part=Renaming(3))), testing=True)


def test_a_checkpoint_without_parameters_of_the_model_is_refused():
    other = nn.ModuleDict(dict(other=nn.Linear(1, 1)))
    with pytest.raises(CheckpointError, match=r'lacks 14 of the 14 parameters.*instead of load_from'):
        check(detector(), other)
    part = nn.ModuleDict(dict(backbone=detector()['backbone']))
    check(detector(), part)
    with pytest.raises(CheckpointError, match=r'other.pth lacks 12 of the 14 parameters of the model: roi_head'):
        check(detector(), part, testing=True)


@pytest.fixture
def one_process():
    dist.init_process_group('gloo', rank=0, world_size=1, store=dist.HashStore())
    yield
    dist.destroy_process_group()


@pytest.mark.usefixtures('one_process')
def test_a_sharded_model_is_compared_under_its_plain_names():
    def sharded(*args, **kwargs):
        return FullyShardedDataParallel(
            detector(*args, **kwargs),
            auto_wrap_policy=ModuleWrapPolicy({Head}),
            device_id=torch.device('cpu'),
            use_orig_params=True,
        )

    check(sharded(), detector(), testing=True)
    check(sharded(5), detector(3))
    with pytest.raises(CheckpointError, match=r'roi_head.hidden_fc.weight is \[32, 8\] .* and \[16, 8\] in the model'):
        check(sharded(), detector(width=32))
    part = nn.ModuleDict(dict(backbone=detector()['backbone']))
    with pytest.raises(CheckpointError, match=r'lacks 12 of the 14 parameters of the model: roi_head.hidden_fc'):
        check(sharded(), part, testing=True)


def test_a_component_called_module_is_compared_too():
    check(nn.ModuleDict(dict(module=detector())), nn.ModuleDict(dict(module=detector())), testing=True)
