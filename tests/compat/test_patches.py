# Copyright (c) addp_mm contributors. Apache-2.0.
"""Each patch: the fault without it, the behaviour with it, and a module without the fault."""

from types import ModuleType

import numpy as np
import pytest
import torch

import addp_mm  # noqa: F401
from addp_mm.compat.activation_checkpointing import patch_activation_checkpointing
from addp_mm.compat.colour import patch_adjust_hue
from addp_mm.compat.focal_loss import patch_focal_loss
from addp_mm.compat.versions import installed_version
from addp_mm.compat.weighted_cross_entropy import patch_weighted_cross_entropy

needs_cpu_only = pytest.mark.skipif(torch.cuda.is_available(), reason='shows what happens without an accelerator')


def module_with(**names):
    module = ModuleType('healthy')
    vars(module).update(names)
    return module


@pytest.mark.parametrize('backend', ['cv2', 'pillow'])
def test_hue_is_shifted_backward_as_far_as_forward(backend):
    import mmcv
    from mmcv.image import photometric

    image = np.random.default_rng(0).integers(0, 256, (8, 8, 3), dtype=np.uint8)
    faulty = int(np.__version__.split('.')[0]) >= 2 and installed_version('onedl-mmcv') is None
    assert hasattr(photometric.adjust_hue, '__wrapped__') == faulty
    if faulty:
        with pytest.raises(OverflowError):
            photometric.adjust_hue.__wrapped__(image, -0.2, backend)
    turned = mmcv.adjust_hue(image, -0.2, backend=backend)
    assert turned.dtype == np.uint8
    assert turned.shape == image.shape
    # 51 of 255 steps backward on a circle of 256 give the same hue as 205 steps forward, in two
    # shifts
    ahead = image
    for factor in (103 / 255, 102 / 255):
        ahead = mmcv.adjust_hue(ahead, factor, backend=backend)
    assert np.abs(turned.astype(int) - ahead.astype(int)).mean() < 4
    with pytest.raises(ValueError, match='hue_factor'):
        mmcv.adjust_hue(image, -0.7, backend=backend)


def test_pure_red_shifted_backward_by_a_third_is_blue():
    import mmcv

    red_bgr = np.full((1, 1, 3), (0, 0, 255), np.uint8)
    blue = mmcv.adjust_hue(red_bgr, -1 / 3, backend='cv2')[0, 0]
    assert blue[0] > 245
    assert blue[1:].max() < 15


def test_adjust_hue_without_the_fault_stays():

    def adjust_hue(img, hue_factor, backend=None):
        return img

    module = module_with(adjust_hue=adjust_hue)
    assert not patch_adjust_hue(module)
    assert module.adjust_hue is adjust_hue


@needs_cpu_only
def test_amp_trains_in_bfloat16_on_the_cpu():
    from mmengine.optim import AmpOptimWrapper

    model = torch.nn.Linear(4, 4)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with pytest.raises(AssertionError, match='only available'):
        AmpOptimWrapper.__init__.__wrapped__(object.__new__(AmpOptimWrapper), optimizer=optimizer)
    wrapper = AmpOptimWrapper(optimizer=optimizer, dtype='bfloat16', clip_grad=dict(max_norm=1.0))
    before = model.weight.clone()
    with wrapper.optim_context(model):
        out = model(torch.ones(2, 4))
        assert out.dtype == torch.bfloat16
        loss = out.float().square().mean()
    wrapper.update_params(loss)
    assert not torch.equal(model.weight, before)
    assert model.weight.dtype == torch.float32
    wrapper.load_state_dict(wrapper.state_dict())


@needs_cpu_only
def test_amp_in_float16_on_the_cpu_scales_the_loss():
    from mmengine.optim import AmpOptimWrapper

    model = torch.nn.Linear(4, 4)
    torch.nn.init.zeros_(model.weight)
    optimizer = torch.optim.SGD(model.parameters(), lr=1.0)
    wrapper = AmpOptimWrapper(optimizer=optimizer, dtype='float16', loss_scale=dict(init_scale=2.0**16))
    tiny = 1e-8  # 0 in float16 without a scale
    with wrapper.optim_context(model):
        out = model(torch.ones(2, 4))
        assert out.dtype == torch.float16
        loss = out.float().sum() * tiny
    wrapper.update_params(loss)
    # the gradient of each weight is 2 * tiny
    torch.testing.assert_close(model.weight, torch.full((4, 4), -2 * tiny), rtol=2e-3, atol=0)
    assert wrapper.state_dict()['loss_scaler']['scale'] == 2.0**16
    wrapper.load_state_dict(wrapper.state_dict())


@needs_cpu_only
def test_amp_refuses_other_types_on_the_cpu():
    from mmengine.optim import AmpOptimWrapper

    with pytest.raises(ValueError, match="dtype='bfloat16'"):
        AmpOptimWrapper(optimizer=torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1), dtype='float64')


def test_amp_on_an_accelerator_is_the_original(monkeypatch):
    from mmengine.optim.optimizer import amp_optimizer_wrapper as module

    monkeypatch.setattr('addp_mm.compat.distributed.has_accelerator', lambda: True)
    monkeypatch.setattr(module, 'is_cuda_available', lambda: True)
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1)
    wrapper = module.AmpOptimWrapper(optimizer=optimizer, dtype='float16', loss_scale=64.0)
    assert wrapper.cast_dtype == torch.float16
    assert wrapper._scale_update_param == 64.0
    assert wrapper.loss_scaler._device == 'cuda'


def test_activation_checkpointing_keeps_keywords_and_gradients():
    from mmengine.runner import activation_checkpointing as module

    class Block(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.fc = torch.nn.Linear(3, 3)

        def forward(self, x, scale=1):
            return self.fc(x) * scale

    broken = Block()
    broken.forward = module.wrap_forward.__wrapped__(broken.forward)
    with pytest.raises(TypeError):
        broken(torch.ones(1, 3), scale=2)
    model = torch.nn.ModuleDict(dict(block=Block()))
    expected = model.block(torch.ones(1, 3), scale=2)
    module.turn_on_activation_checkpointing(model, 'block')
    out = model.block(torch.ones(1, 3), scale=2)
    out.sum().backward()
    assert torch.equal(out, expected)
    assert model.block.fc.weight.grad.abs().sum() > 0


def test_activation_checkpointing_without_the_fault_stays():

    def wrap_forward(forward):
        return forward

    module = module_with(wrap_forward=wrap_forward)
    assert not patch_activation_checkpointing(module)
    assert module.wrap_forward is wrap_forward


def focal_loss_by_hand(pred, target, num_classes, ignore_index=255, gamma=2.0, alpha=0.5):
    total, count = 0.0, 0
    for logits, label in zip(pred.movedim(1, -1).reshape(-1, num_classes), target.reshape(-1), strict=True):
        for c, logit in enumerate(logits):
            count += 1
            if label == ignore_index:
                continue
            hit = label == 1 if num_classes == 1 else label == c
            p = torch.sigmoid(logit)
            total += -alpha * (1 - p) ** gamma * p.log() if hit else -(1 - alpha) * p**gamma * (1 - p).log()
    return total / count


@pytest.mark.slow
def test_mmseg_class_weights_leave_unlabelled_pixels_out():
    """The mean over labelled pixels, each with the weight of its class, computed by hand."""
    from mmseg.models.losses import CrossEntropyLoss

    generator = torch.Generator().manual_seed(0)
    pred, weights = torch.randn(2, 3, 2, 4, generator=generator), [0.1, 1.0, 2.0]
    target = torch.randint(0, 3, (2, 2, 4), generator=generator)
    for unlabelled in (0, 2):
        target[0, 0, :unlabelled] = 255
        total, count = 0.0, 0.0
        for logits, label in zip(pred.movedim(1, -1).reshape(-1, 3), target.reshape(-1), strict=True):
            if label != 255:
                total -= weights[label] * logits.log_softmax(0)[label]
                count += weights[label]
        loss = CrossEntropyLoss(class_weight=weights)(pred, target, ignore_index=255)
        torch.testing.assert_close(loss, total / count)
    healthy = module_with(cross_entropy=lambda *args, **kwargs: 0.0)
    original = healthy.cross_entropy
    assert not patch_weighted_cross_entropy(healthy)
    assert healthy.cross_entropy is original


@pytest.mark.slow
def test_mmseg_focal_loss_on_the_cpu():
    from mmseg.models.losses import FocalLoss

    generator = torch.Generator().manual_seed(0)
    for num_classes in (1, 3):
        pred = torch.randn(2, num_classes, 2, 4, generator=generator)
        target = torch.randint(0, max(num_classes, 2), (2, 2, 4), generator=generator)
        target[0, 0, :2] = 255
        with pytest.raises((RuntimeError, ValueError)):
            FocalLoss.forward.__wrapped__(FocalLoss(), pred, target)
        torch.testing.assert_close(FocalLoss()(pred, target), focal_loss_by_hand(pred, target, num_classes))
    unreduced = FocalLoss(reduction='none')(pred, target)
    assert unreduced.shape == pred.shape
    assert unreduced[0, :, 0, :2].abs().max() == 0


def test_focal_loss_without_the_fault_stays():

    class FocalLoss:
        def __call__(self, pred, target):
            return self.forward(pred, target)

        def forward(self, pred, target):
            return pred.sum()

    forward = FocalLoss.forward
    assert not patch_focal_loss(module_with(FocalLoss=FocalLoss))
    assert FocalLoss.forward is forward


def test_the_training_loop_reads_nothing_before_the_first_batch():
    from mmengine.runner import loops

    from addp_mm.compat.train_loop import patch_train_loop

    read = []

    class Loader:
        def __iter__(self):
            read.append(True)
            return iter('ab')

    original = loops._InfiniteDataloaderIterator.__mro__[1]
    original(Loader())
    assert read.pop()  # the fault
    batches = loops._InfiniteDataloaderIterator(Loader())
    assert not read
    assert [next(batches), next(batches)] == ['a', 'b']
    assert read == [True]
    healthy = module_with(_InfiniteDataloaderIterator=loops._InfiniteDataloaderIterator)
    assert not patch_train_loop(healthy)
    assert healthy._InfiniteDataloaderIterator is loops._InfiniteDataloaderIterator


def test_parameter_groups_are_plain_dicts():
    from mmengine.config import ConfigDict
    from mmengine.optim import build_optim_wrapper

    cfg = ConfigDict(
        type='OptimWrapper',
        optimizer=dict(type='AdamW', lr=0.1, betas=(0.9, 0.95), weight_decay=0.05),
        paramwise_cfg=dict(bias_decay_mult=0.0),
    )
    groups = build_optim_wrapper(torch.nn.Linear(2, 2), cfg).optimizer.param_groups
    assert [type(group) for group in groups] == [dict, dict]  # torch.compile fails on a ConfigDict
    assert [group['weight_decay'] for group in groups] == [0.05, 0.0]
    assert {group['betas'] for group in groups} == {(0.9, 0.95)}


def test_metrics_get_float32_instead_of_bfloat16():
    from mmengine.evaluator import BaseMetric, Evaluator
    from mmengine.structures import BaseDataElement, InstanceData

    class Sum(BaseMetric):
        def process(self, data_batch, data_samples):
            boxes = [sample['pred_instances']['bboxes'].numpy() for sample in data_samples]
            self.results.append(sum(float(array.sum()) for array in boxes))

        def compute_metrics(self, results):
            return dict(sum=sum(results))

    metric = Sum()
    for dtype in (torch.float32, torch.bfloat16):
        sample = BaseDataElement(pred_instances=InstanceData(bboxes=torch.full((1, 4), 0.5, dtype=dtype)))
        Evaluator([metric]).process([sample])
    assert metric.results == [2.0, 2.0]
    with pytest.raises(TypeError):
        Evaluator.process.__wrapped__(Evaluator([metric]), [sample])
