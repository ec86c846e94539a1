# Copyright (c) addp_mm contributors. Apache-2.0.
"""Patches that make the released OpenMMLab packages run on a current PyTorch.

``PATCHES`` is the table of all patches: its name, the patched module, and the fault. A patch is
applied when its module is imported, and only if that module has the fault. This package does not
import torch or an OpenMMLab package by itself.

``ADDP_MM_COMPAT=off`` in the environment switches off all patches, including mmcv's operators, and
leaves the packages unchanged. The check of installed versions at import and the features of
:mod:`addp_mm.extensions`, such as the safe reading of checkpoints, stay on.
"""

import os
import sys

from addp_mm.compat.activation_checkpointing import patch_activation_checkpointing
from addp_mm.compat.amp import patch_amp_optim_wrapper, patch_autocast
from addp_mm.compat.averaged_model import patch_moving_average
from addp_mm.compat.batched_nms import patch_batched_nms
from addp_mm.compat.coco_evaluation import patch_coco_metric, patch_cocoeval
from addp_mm.compat.colour import patch_adjust_hue
from addp_mm.compat.compiled_step import (
    patch_accuracy,
    patch_data_preprocessors,
    patch_detection_heads,
    patch_detectors,
    patch_drop_path,
    patch_optim_wrappers,
)
from addp_mm.compat.config_text import patch_config_text
from addp_mm.compat.counted_labels import patch_counted_labels
from addp_mm.compat.deepspeed import patch_deepspeed_optimizers
from addp_mm.compat.deformable_attention import patch_deformable_attention
from addp_mm.compat.device_kinds import patch_get_device
from addp_mm.compat.distributed import patch_ddp, patch_init_dist, patch_sync_batchnorm
from addp_mm.compat.empty_dataset import patch_base_dataset
from addp_mm.compat.evaluator import patch_evaluator
from addp_mm.compat.flexible_runner import patch_flexible_runner
from addp_mm.compat.focal_loss import patch_focal_loss
from addp_mm.compat.fsdp import patch_fsdp_strategy, patch_fsdp_wrapper
from addp_mm.compat.fused_optimizers import patch_fused_optimizers
from addp_mm.compat.half_losses import patch_half_loss
from addp_mm.compat.importing import when_imported
from addp_mm.compat.inferencer_loader import patch_inferencer_loader
from addp_mm.compat.inferencer_scope import patch_inference_scope, patch_inferencer_scope
from addp_mm.compat.mask_pasting import patch_mask_pasting
from addp_mm.compat.matrix_products import patch_matrix_products
from addp_mm.compat.mmcv_ext import EXT_NAME, install_mmcv_ext, patch_mmcv_ext
from addp_mm.compat.multimodal import patch_multimodal
from addp_mm.compat.numpy_names import patch_numpy_names
from addp_mm.compat.optional_packages import patch_class_without_package, patch_nifti, patch_panoptic_annotations
from addp_mm.compat.packages import patch_package_names, patch_package_utils
from addp_mm.compat.patch import Patch, applied
from addp_mm.compat.point_functions import patch_carafe_naive, patch_current_device, patch_furthest_points
from addp_mm.compat.removed_names import patch_distutils, patch_find_loader
from addp_mm.compat.skipped_parameters import patch_skipped_parameters
from addp_mm.compat.sync_batch_norm import patch_norms_with_activation
from addp_mm.compat.train_loop import patch_train_loop
from addp_mm.compat.weighted_cross_entropy import patch_weighted_cross_entropy

__all__ = ['PATCHES', 'Patch', 'applied', 'install', 'is_off', 'summary', 'waiting']

_FAULTS = {
    'scope': "a model's transforms are not found after a model of another package was built",
    'half': 'the loss fails in half precision',
    'package': 'a class whose package is missing fails without naming it',
    'find_loader': 'compiled operators are looked up with pkgutil.find_loader, which Python 3.14 lacks',
    'again': 'compile=True compiles again when the number of objects or labelled pixels changes',
    'cuda': 'the function calls torch.cuda, whatever the device of its tensors',
    'loader': 'the inferencer refuses pipelines that load images with addp_mm.LoadImage',
}
PATCHES = (
    Patch('operators', EXT_NAME, 'mmcv is installed without its compiled operators', patch_mmcv_ext),
    Patch('batched_nms', 'mmcv.ops.nms', 'batched_nms fails or mixes classes in half precision', patch_batched_nms),
    Patch('knn', 'mmcv.ops.knn', _FAULTS['cuda'], patch_current_device),
    Patch('points_in_boxes', 'mmcv.ops.points_in_boxes', _FAULTS['cuda'], patch_current_device),
    Patch('furthest_points', 'mmcv.ops.furthest_point_sample', _FAULTS['cuda'], patch_furthest_points),
    Patch('carafe_naive', 'mmcv.ops.carafe', 'the gradient of carafe_naive is refused off CUDA', patch_carafe_naive),
    Patch(
        'deformable_attention',
        'mmcv.ops.multi_scale_deform_attn',
        'off CUDA, deformable attention samples level by level',
        patch_deformable_attention,
    ),
    Patch('vfnet', 'mmdet.models.dense_heads.vfnet_head', _FAULTS['half'], patch_half_loss),
    Patch('autoassign', 'mmdet.models.dense_heads.autoassign_head', _FAULTS['half'], patch_half_loss),
    Patch('ddq', 'mmdet.models.losses.ddq_detr_aux_loss', _FAULTS['half'], patch_half_loss),
    Patch('hue', 'mmcv.image.photometric', 'hue jitter fails with numpy 2', patch_adjust_hue),
    Patch('det_inferencer', 'mmdet.apis.det_inferencer', _FAULTS['loader'], patch_inferencer_loader),
    Patch('seg_inferencer', 'mmseg.apis.mmseg_inferencer', _FAULTS['loader'], patch_inferencer_loader),
    Patch('det_scope', 'mmdet.apis.inference', _FAULTS['scope'], patch_inference_scope),
    Patch('seg_scope', 'mmseg.apis.inference', _FAULTS['scope'], patch_inference_scope),
    Patch('cls_scope', 'mmpretrain.apis.base', _FAULTS['scope'], patch_inferencer_scope),
    Patch(
        'deepspeed',
        'mmengine._strategy.deepspeed',
        'DeepSpeedStrategy needs optimizers that DeepSpeed has removed',
        patch_deepspeed_optimizers,
    ),
    Patch(
        'fsdp_resume',
        'mmengine._strategy.fsdp',
        'FSDPStrategy cannot resume with torch 2.1 or newer',
        patch_fsdp_strategy,
    ),
    Patch('device', 'mmengine.device.utils', 'GPUs of Intel are not found', patch_get_device),
    Patch('fsdp_cpu', 'mmengine.model.wrappers.fully_sharded_distributed', 'FSDP needs a GPU', patch_fsdp_wrapper),
    Patch('ddp_cpu', 'mmengine.model.wrappers.distributed', 'DDP needs a GPU', patch_ddp),
    Patch('init_dist_cpu', 'mmengine.dist.utils', 'launchers need CUDA', patch_init_dist),
    Patch(
        'sync_bn_activation',
        'mmengine.model.utils',
        "sync_bn leaves out the activations of timm's batch norms without a word",
        patch_norms_with_activation,
    ),
    Patch(
        'sync_bn_cpu',
        'mmengine.model.utils',
        'sync_bn without a GPU fails in the first forward pass, not when the model is built',
        patch_sync_batchnorm,
    ),
    Patch(
        'amp_cpu',
        'mmengine.optim.optimizer.amp_optimizer_wrapper',
        'mixed precision needs CUDA',
        patch_amp_optim_wrapper,
    ),
    Patch('autocast', 'mmengine.runner.amp', 'autocast refuses float16 on the CPU, XPU, and MPS', patch_autocast),
    Patch('bfloat16_metrics', 'mmengine.evaluator.evaluator', 'metrics fail on bfloat16', patch_evaluator),
    Patch('compiled_data', 'mmengine.model.base_model.data_preprocessor', _FAULTS['again'], patch_data_preprocessors),
    Patch(
        'compiled_update',
        'mmengine.optim.optimizer.base',
        'compile=True fails with parameter groups, and compiles again when the learning rate changes',
        patch_optim_wrappers,
    ),
    Patch('compiled_detector', 'mmdet.models.detectors.base', _FAULTS['again'], patch_detectors),
    Patch('compiled_dense_head', 'mmdet.models.dense_heads.base_dense_head', _FAULTS['again'], patch_detection_heads),
    Patch('compiled_masks', 'mmdet.models.dense_heads.base_mask_head', _FAULTS['again'], patch_detection_heads),
    Patch('compiled_roi_head', 'mmdet.models.roi_heads.base_roi_head', _FAULTS['again'], patch_detection_heads),
    Patch('drop_path', 'mmcv.cnn.bricks.drop', 'with compile=True, each drop rate ends a graph', patch_drop_path),
    Patch('compiled_accuracy', 'mmseg.models.losses.accuracy', _FAULTS['again'], patch_accuracy),
    Patch(
        'fused_optimizers',
        'mmengine.optim.optimizer.optimizer_wrapper',
        'Adam, AdamW and SGD step parameter by parameter, or by several kernels for each group',
        patch_fused_optimizers,
    ),
    Patch(
        'moving_average',
        'mmengine.model.averaged_model',
        'EMAHook averages the weights one by one',
        patch_moving_average,
    ),
    Patch(
        'skipped_parameters',
        'mmengine.optim.optimizer.default_constructor',
        'with paramwise_cfg, a warning is logged for each frozen parameter',
        patch_skipped_parameters,
    ),
    Patch(
        'flexible_runner',
        'mmengine.runner._flexible_runner',
        'FlexibleRunner ignores compile, fails without env_cfg, and saves a wrong iteration after a validation',
        patch_flexible_runner,
    ),
    Patch(
        'train_loop',
        'mmengine.runner.loops',
        'IterBasedTrainLoop loads batches before a resume knows its position',
        patch_train_loop,
    ),
    Patch(
        'activation_checkpointing',
        'mmengine.runner.activation_checkpointing',
        'activation_checkpointing loses keyword arguments and gradients',
        patch_activation_checkpointing,
    ),
    Patch(
        'config_text',
        'mmengine.config.config',
        'the text of the config is formatted again for each checkpoint',
        patch_config_text,
    ),
    Patch(
        'fork_names',
        'mmengine.config.utils',
        "_base_ = 'mmseg::…' does not find the fork of mmsegmentation",
        patch_package_names,
    ),
    Patch(
        'pkg_resources',
        'mmengine.utils.package_utils',
        'packages are looked up with pkg_resources, which setuptools 81 lacks',
        patch_package_utils,
    ),
    Patch('find_loader', 'mmengine.utils.dl_utils.misc', _FAULTS['find_loader'], patch_find_loader),
    Patch('mmcv_find_loader', 'mmcv.utils.ext_loader', _FAULTS['find_loader'], patch_find_loader),
    Patch(
        'distutils',
        'mmengine.utils.dl_utils.collect_env',
        'a Runner needs distutils, which Python 3.12 lacks',
        patch_distutils,
    ),
    Patch(
        'transformers',
        'mmpretrain.utils.dependency',
        'mmpretrain.models cannot be imported beside a current transformers',
        patch_multimodal,
    ),
    Patch(
        'class_weight',
        'mmseg.models.losses.cross_entropy_loss',
        'class_weight fails if pixels are unlabelled',
        patch_weighted_cross_entropy,
    ),
    Patch('nifti', 'mmseg.utils.io', 'NIfTI files without nibabel end in UnboundLocalError', patch_nifti),
    Patch('mask2former', 'mmseg.models.decode_heads.mask2former_head', _FAULTS['package'], patch_class_without_package),
    Patch('maskformer', 'mmseg.models.decode_heads.maskformer_head', _FAULTS['package'], patch_class_without_package),
    Patch('gdal', 'mmseg.apis.remote_sense_inferencer', _FAULTS['package'], patch_class_without_package),
    Patch(
        'panoptic',
        'mmdet.datasets.transforms.loading',
        'LoadPanopticAnnotations does not use the module panopticapi.utils',
        patch_panoptic_annotations,
    ),
    Patch(
        'retrieval',
        'mmpretrain.evaluation.metrics.retrieval',
        'retrieval metrics fail with numpy 2.4',
        patch_numpy_names,
    ),
    Patch(
        'video_metric',
        'mmdet.evaluation.functional.ytviseval',
        'the YouTube-VIS metric fails with numpy 1.24 or newer',
        patch_numpy_names,
    ),
    Patch('empty_dataset', 'mmengine.dataset.base_dataset', 'an empty dataset fails in numpy', patch_base_dataset),
    Patch('coco_masks', 'pycocotools.cocoeval', 'objects without a mask count as missed masks', patch_cocoeval),
    Patch(
        'coco_classes',
        'mmdet.evaluation.metrics.coco_metric',
        'CocoMetric fails if the model has more classes than the data',
        patch_coco_metric,
    ),
    Patch(
        'mask_pasting',
        'mmdet.models.roi_heads.mask_heads.fcn_mask_head',
        'the mask of a box outside of the image fails on the CPU',
        patch_mask_pasting,
    ),
    Patch(
        'matrix_products',
        'torch',
        'products of float32 matrices take twice the time on CPUs with AVX-512 that are not made by Intel',
        patch_matrix_products,
    ),
    Patch(
        'counted_labels',
        'mmseg.datasets.transforms.transforms',
        'RandomCrop with cat_max_ratio sorts the pixels of each crop',
        patch_counted_labels,
    ),
    Patch('focal_loss', 'mmseg.models.losses.focal_loss', 'FocalLoss fails on the CPU', patch_focal_loss),
)


def is_off() -> bool:
    """Whether ``ADDP_MM_COMPAT=off`` switches the patches off."""
    return os.environ.get('ADDP_MM_COMPAT', '').lower() == 'off'


def install() -> None:
    """Apply every patch when its module is imported. A second call changes nothing."""
    if is_off():
        return
    install_mmcv_ext()
    for patch in PATCHES:
        when_imported(patch.module, patch)


def waiting() -> tuple[Patch, ...]:
    """The patches whose module was not imported yet. It may have the fault or not."""
    return () if is_off() else tuple(patch for patch in PATCHES if patch.module not in sys.modules)


def summary() -> str:
    """One line for a log: the applied patches, and the number of patches that wait."""
    if is_off():
        return 'addp_mm: ADDP_MM_COMPAT=off, no patch is applied'
    names = ', '.join(patch.name for patch in applied()) or 'none'
    return f'addp_mm: applied patches: {names}; {len(waiting())} wait for the import of their module'
