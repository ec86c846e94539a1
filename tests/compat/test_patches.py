# Copyright (c) addp_mm contributors. Apache-2.0.
"""Each patch: the fault without it, the behaviour with it, and a module without the fault."""

from types import ModuleType, SimpleNamespace

import numpy as np
import pytest
import torch

import addp_mm  # noqa: F401
from addp_mm.compat.activation_checkpointing import patch_activation_checkpointing
from addp_mm.compat.batched_nms import patch_batched_nms
from addp_mm.compat.coco_evaluation import patch_coco_metric
from addp_mm.compat.colour import patch_adjust_hue
from addp_mm.compat.empty_dataset import patch_base_dataset
from addp_mm.compat.focal_loss import patch_focal_loss
from addp_mm.compat.half_losses import patch_half_loss
from addp_mm.compat.mask_pasting import patch_mask_pasting
from addp_mm.compat.numpy_names import patch_numpy_names
from addp_mm.compat.optional_packages import MissingPackageError, patch_class_without_package, patch_nifti
from addp_mm.compat.versions import installed_version
from addp_mm.compat.weighted_cross_entropy import patch_weighted_cross_entropy
from addp_mm.errors import ConfigError

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


def many_boxes(count: int, classes: int = 3):
    """Boxes on a grid of 8 px, with scores that bfloat16 and float16 hold exactly, and classes."""
    generator = torch.Generator().manual_seed(0)
    corner = torch.randint(0, 60, (count, 2), generator=generator).float() * 8
    boxes = torch.cat([corner, corner + 8 * torch.randint(1, 6, (count, 2), generator=generator)], 1)
    scores = torch.randint(1, 256, (count,), generator=generator) / 256
    return boxes, scores, torch.randint(classes, (count,), generator=generator)


def apart(boxes, scores, classes, nms, number):
    """The boxes that each class keeps, best first, by one call of nms for each class."""
    kept = []
    for label in range(int(classes.max()) + 1):
        own = torch.where(classes == label)[0]
        dets, inds = nms(boxes[own], scores[own])
        kept += list(zip(dets[:, 4].tolist(), own[inds].tolist(), strict=True))
    return sorted(kept, reverse=True)[:number] if number > 0 else sorted(kept, reverse=True)


@pytest.mark.parametrize('dtype', [torch.bfloat16, torch.float16])
@pytest.mark.parametrize('kind', ['nms', 'soft_nms'])
@pytest.mark.parametrize('split', [1, 100000])
@pytest.mark.parametrize('half', ['scores', 'boxes', 'both'])
def test_batched_nms_in_half_precision_is_that_of_float32(dtype, kind, split, half):
    import mmcv.ops

    boxes, scores, classes = many_boxes(300)
    options = dict(iou_threshold=0.4) if kind == 'nms' else dict(iou_threshold=0.4, min_score=0.05)
    expected = apart(boxes, scores, classes, lambda *args: getattr(mmcv.ops, kind)(*args, **options), 0)
    assert 30 < len(expected) < 300
    dets, keep = mmcv.ops.batched_nms(
        boxes.to(dtype) if half != 'scores' else boxes,
        scores.to(dtype) if half != 'boxes' else scores,
        classes,
        dict(type=kind, split_thr=split, **options),
    )
    assert sorted(keep.tolist()) == sorted(index for _, index in expected)
    assert dets.dtype == (dtype if half == 'both' else torch.float32)
    wanted = torch.tensor([score for score, _ in expected]).to(dets.dtype)
    torch.testing.assert_close(dets[:, 4], wanted)
    assert torch.equal(dets[:, :4].float(), boxes[keep])


def test_batched_nms_of_ten_thousand_boxes():
    """10,001 boxes are more than mmcv's threshold, from which it treats the classes one by one."""
    import mmcv.ops

    boxes, scores, classes = many_boxes(10001)
    cfg = dict(type='nms', iou_threshold=0.4, max_num=50)
    expected, order = mmcv.ops.batched_nms(boxes, scores, classes, cfg)
    assert len(order) == 50
    for dtype in (torch.bfloat16, torch.float16):
        dets, keep = mmcv.ops.batched_nms(boxes, scores.to(dtype), classes, cfg)
        assert torch.equal(dets, expected)
        assert torch.equal(keep, order)


def test_eighty_classes_do_not_overflow_float16():
    import mmcv.ops

    # the boxes of class 79 are moved by 79 * 1000 pixels; float16 ends at 65504
    boxes = torch.tensor([[0.0, 0.0, 999.0, 999.0]] * 2).half()
    scores, classes = torch.tensor([0.5, 0.25]).half(), torch.tensor([79, 79])
    _, keep = mmcv.ops.batched_nms(boxes, scores, classes, dict(type='nms', iou_threshold=0.5))
    assert keep.tolist() == [0]


def test_batched_nms_of_nothing_of_integers_and_without_nms():
    import mmcv.ops

    cfg = dict(type='nms', iou_threshold=0.5)
    empty, none = torch.zeros(0, 4), torch.zeros(0, dtype=torch.long)
    assert mmcv.ops.batched_nms(empty, torch.zeros(0), none, None)[0].shape == (0, 5)
    boxes = torch.tensor([[0, 0, 4, 4], [0, 0, 4, 5]])
    dets, keep = mmcv.ops.batched_nms(boxes, torch.tensor([0.5, 0.25]), torch.tensor([0, 0]), cfg)
    assert keep.tolist() == [0]
    assert dets.tolist() == [[0.0, 0.0, 4.0, 4.0, 0.5]]


def test_batched_nms_without_the_fault_stays():

    def batched_nms(boxes, scores, idxs, nms_cfg, class_agnostic=False):
        return boxes, idxs

    module = module_with(batched_nms=batched_nms, nms=None)
    assert not patch_batched_nms(module)
    assert module.batched_nms is batched_nms


def test_a_loss_gets_float32_instead_of_half_precision():
    """The failing line of VFNet's loss, in a head that stands in for it."""

    class VFNetHead:
        def loss_by_feat(self, scores, boxes, batch_gt_instances=None):
            targets = torch.zeros_like(scores[0])
            targets[torch.tensor([1])] = torch.ones(1)
            return dict(loss=(scores[0] - targets).sum(), dtypes=(boxes['first'].dtype, batch_gt_instances.dtype))

    module = module_with(VFNetHead=VFNetHead)
    module.__name__ = 'mmdet.models.dense_heads.vfnet_head'
    head, labels = VFNetHead(), torch.tensor([3])
    half = [torch.full((2,), 2.0, dtype=torch.bfloat16, requires_grad=True)]
    arguments = half, dict(first=torch.zeros(1, dtype=torch.float16))
    with pytest.raises(RuntimeError, match='dtypes match'):
        head.loss_by_feat(*arguments, batch_gt_instances=labels)
    assert patch_half_loss(module)
    result = head.loss_by_feat(*arguments, batch_gt_instances=labels)
    assert result['loss'].item() == 3
    assert result['dtypes'] == (torch.float32, torch.int64)
    result['loss'].backward()
    assert half[0].grad.tolist() == [1, 1]


def test_retrieval_recall_and_average_precision():
    from mmpretrain.evaluation.metrics import RetrievalAveragePrecision, RetrievalRecall

    predicted, wanted = [[3, 1, 7, 5], [2, 4, 6, 0]], [[7, 9], [2, 0]]
    found = [[index in goal for index in row] for row, goal in zip(predicted, wanted, strict=True)]
    # mmpretrain shortens the lists that it gets
    recalls = RetrievalRecall.calculate(predicted.copy(), wanted, topk=(1, 3), pred_indices=True, target_indices=True)
    for k, recall in zip((1, 3), recalls, strict=True):
        assert float(recall) == 100 * sum(any(row[:k]) for row in found) / 2
    precisions = [
        sum(sum(row[: i + 1]) / (i + 1) for i, hit in enumerate(row) if hit) / len(goal)
        for row, goal in zip(found, wanted, strict=True)
    ]
    average = RetrievalAveragePrecision.calculate(predicted, wanted, topk=4, pred_indices=True, target_indices=True)
    assert float(average) == pytest.approx(100 * sum(precisions) / 2)


def test_numpy_names_are_those_of_old_numpy():
    module = module_with(np=np)
    removed = {name for name in ('in1d', 'float') if name not in dir(np)}
    assert patch_numpy_names(module) == bool(removed)
    assert module.np.arange is np.arange
    if 'in1d' in removed:
        assert module.np.in1d([[1, 2], [3, 4]], [2, 3]).tolist() == [False, True, True, False]
        assert module.np.in1d([1, 2], [2], invert=True).tolist() == [True, False]
    if 'float' in removed:
        assert np.array([True]).astype(module.np.float).dtype == np.float64


def test_the_video_metric_accumulates():
    """One video of two frames, with one object that is found exactly: AP 1."""
    from mmdet.evaluation.functional import YTVIS, YTVISeval

    box = [0.0, 0.0, 4.0, 4.0]
    track = dict(bboxes=[box, box], areas=[16.0, 16.0], category_id=1, video_id=1, iscrowd=0)
    truth = YTVIS()
    truth.dataset = dict(
        videos=[dict(id=1, width=8, height=8, length=2)],
        categories=[dict(id=1, name='garment')],
        annotations=[dict(track, id=1, segmentations=[mask_of(box), mask_of(box)])],
    )
    truth.createIndex()
    found = truth.loadRes([dict(video_id=1, category_id=1, score=0.9, segmentations=[mask_of(box), mask_of(box)])])
    evaluation = YTVISeval(truth, found, 'segm')
    evaluation.params.vidIds, evaluation.params.catIds = [1], [1]
    evaluation.evaluate()
    evaluation.accumulate()
    precision = evaluation.eval['precision'][:, :, 0, 0, -1]
    np.testing.assert_allclose(precision, 1)


def mask_of(box) -> dict:
    from pycocotools import mask

    left, top, width, height = (int(side) for side in box)
    pixels = np.zeros((8, 8), np.uint8, order='F')
    pixels[top : top + height, left : left + width] = 1
    return mask.encode(pixels)


def test_nifti_names_the_missing_package(monkeypatch):
    import gzip
    import io

    from mmseg.utils import datafrombytes

    from addp_mm.compat import optional_packages

    buffer = io.BytesIO()
    np.save(buffer, np.arange(3))
    assert datafrombytes(buffer.getvalue(), backend='numpy').tolist() == [0, 1, 2]
    if installed_version('nibabel') is None:
        with pytest.raises(MissingPackageError, match='pip install nibabel'):
            datafrombytes(gzip.compress(b'image'), backend='nifti')
    monkeypatch.setattr(optional_packages, 'find_spec', lambda name: name)
    module = module_with(datafrombytes=datafrombytes)
    assert not patch_nifti(module)
    assert module.datafrombytes is datafrombytes


@pytest.mark.parametrize(
    'module, name, package',
    [
        ('mmseg.models.decode_heads.mask2former_head', 'Mask2FormerHead', 'mmdet'),
        ('mmseg.models.decode_heads.maskformer_head', 'MaskFormerHead', 'mmdet'),
        ('mmseg.apis.remote_sense_inferencer', 'RSImage', 'osgeo'),
    ],
)
def test_a_class_without_its_package_names_it(monkeypatch, module, name, package):
    import importlib

    from addp_mm.compat import optional_packages

    real = importlib.import_module(module)
    standin = ModuleType(module)
    setattr(standin, name, type(name, (), {'__init__': getattr(real, name).__init__}))
    monkeypatch.setattr(optional_packages, 'find_spec', lambda name: name)
    assert not patch_class_without_package(standin)
    monkeypatch.setattr(optional_packages, 'find_spec', lambda name: None)
    assert patch_class_without_package(standin)
    with pytest.raises(MissingPackageError, match=f'{name} needs {package}, which is not installed: .* install'):
        getattr(standin, name)('image.tif', feat_channels=8)


def panoptic_scene():
    """The ids of three segments on 10 x 10 pixels, and their records."""
    ids = np.full((10, 10), 6, np.int32)
    ids[:5], ids[5:, :5] = 10001, 11004
    records = [dict(id=10001, category=0, is_thing=True), dict(id=11004, category=1, is_thing=True)]
    return ids, [*records, dict(id=6, category=2, is_thing=False)]


@pytest.mark.parametrize('apart', [False, True])
def test_panoptic_annotations_load(monkeypatch, tmp_path, apart):
    """With a module ``panopticapi.utils`` that is, or is not, the attribute of its package."""
    import sys

    import cv2
    from mmdet.datasets.transforms import LoadPanopticAnnotations

    def rgb2id(colours):
        return colours.astype(np.int32) @ np.array([1, 256, 256**2])

    package, utils = ModuleType('panopticapi'), module_with(rgb2id=rgb2id)
    package.utils = module_with(rgb2id=lambda colours: None) if apart else utils
    monkeypatch.setitem(sys.modules, 'panopticapi', package)
    monkeypatch.setitem(sys.modules, 'panopticapi.utils', utils)
    ids, records = panoptic_scene()
    path = str(tmp_path / 'ids.png')
    cv2.imwrite(path, np.stack([ids // 256**2, ids // 256 % 256, ids % 256], -1).astype(np.uint8))
    transform = LoadPanopticAnnotations(with_bbox=False, with_label=False)
    loaded = transform(dict(ori_shape=(10, 10), seg_map_path=path, segments_info=records))
    expected = np.zeros((10, 10), int)
    for record in records:
        expected[ids == record['id']] = record['category']
    assert (loaded['gt_seg_map'] == expected).all()
    assert (loaded['gt_masks'].masks == np.stack([ids == 10001, ids == 11004])).all()


@pytest.mark.parametrize('listed', [0, 3])
def test_a_dataset_without_images_says_why(listed):
    from mmengine.dataset import BaseDataset

    class Small(BaseDataset):
        def load_data_list(self):
            return [dict(width=28)] * listed

        def filter_data(self):
            return [one for one in self.data_list if one['width'] >= self.filter_cfg['min_size']]

    def build(least):
        return Small(ann_file='a.json', data_root='', filter_cfg=dict(min_size=least))

    words = r'none of 3 images is left.*filter_cfg=\{.min_size.: 32\}' if listed else 'no image. Check ann_file'
    with pytest.raises(ConfigError, match=f'Small on a.json: {words}'):
        build(32)
    if listed:
        assert len(build(28)) == 3
    with pytest.raises(ValueError, match='need at least one array'):
        BaseDataset._serialize_data.__wrapped__(SimpleNamespace(data_list=[]))


def test_a_dataset_without_the_fault_stays():
    class BaseDataset:
        def _serialize_data(self):
            return None

    assert not patch_base_dataset(module_with(BaseDataset=BaseDataset))


def test_a_coco_metric_without_the_fault_stays():
    class CocoMetric:
        def results2json(self, results, outfile_prefix):
            return {}

    assert not patch_coco_metric(module_with(CocoMetric=CocoMetric))


def test_the_training_loop_reads_nothing_before_the_first_batch():
    from mmengine.runner import loops

    from addp_mm.compat.train_loop import patch_train_loop

    read = []

    class Loader:
        def __iter__(self):
            read.append(True)
            return iter('ab')

    original = loops._InfiniteDataloaderIterator.__mro__[1]
    if original is not object:  # patched: this version has the fault
        original(Loader())
        assert read.pop()
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


def test_the_mask_of_a_box_outside_of_the_image_covers_no_pixel():
    from mmdet.models.roi_heads.mask_heads import fcn_mask_head

    masks, inner = torch.ones(1, 1, 4, 4), torch.tensor([[1.0, 1, 3, 3]])
    paste = fcn_mask_head._do_paste_mask
    for box in ([9.0, 0, 12, 3], [0.0, 9, 3, 12], [-9.0, 0, -5, 3], [9.0, 0, 0, 3], [float('nan'), 0, 3, 3]):
        if box[0] == box[0]:  # of NaN, mmdet makes a region of gigabytes
            with pytest.raises(RuntimeError):
                paste.__wrapped__(masks, torch.tensor([box]), 4, 4)
        found, region = paste(masks, torch.tensor([box]), 4, 4)
        assert torch.zeros(1, 4, 4)[(slice(None), *region)].shape == found.shape == (1, 0, 0)
    found, region = paste(masks, inner, 4, 4)
    expected, same = paste.__wrapped__(masks, inner, 4, 4)
    assert region == same
    torch.testing.assert_close(found, expected)


def test_pasting_without_the_fault_stays():
    module = module_with(_do_paste_mask=lambda *_: None)
    assert not patch_mask_pasting(module)
