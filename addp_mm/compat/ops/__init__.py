# Copyright (c) addp_mm contributors. Apache-2.0.
"""mmcv's compiled operators, implemented with torchvision.ops and torch.

Names, arguments and in-place results are those of ``mmcv._ext`` in mmcv 2.x, so that ``mmcv.ops``
calls them unchanged, on any device. float16 and bfloat16 inputs are computed in float32, and the
result is rounded once. Operators that are not implemented can be imported, and raise an error when
they are called.
"""

from . import (  # noqa: F401  # each file adds its operators to OPS
    active_rotated_filter,
    bbox_overlaps,
    bezier_align,
    bias_act,
    border_align,
    box_iou_polygon,
    carafe,
    contour_expand,
    convex_iou,
    correlation,
    deform_conv,
    deform_roi_pool,
    filtered_lrelu,
    focal_loss,
    furthest_point_sample,
    fused_bias_leakyrelu,
    iou3d,
    line_nms,
    masked_conv,
    min_area_polygons,
    ms_deform_attn,
    nms,
    nms_polygon,
    pixel_group,
    point_gather,
    point_neighbours,
    points_in_boxes,
    points_in_polygons,
    prroi_pool,
    psamask,
    riroi_align_rotated,
    roi_align,
    roi_align_rotated,
    roi_pool,
    roiaware_pool3d,
    rotated_feature_align,
    soft_nms,
    sort_vertices,
    sparse_conv,
    sparse_pairs,
    sync_bn,
    tin_shift,
    upfirdn2d,
    voxelize,
)
from .common import OPS
from .info import get_compiler_version, get_compiling_cuda_version
from .missing import MissingOpError, missing_op

OPS.update(get_compiler_version=get_compiler_version, get_compiling_cuda_version=get_compiling_cuda_version)

__all__ = ['OPS', 'MissingOpError', 'missing_op']
