# Copyright (c) addp_mm contributors. Apache-2.0.
"""mmcv's compiled operators, implemented with torchvision.ops and torch.

Names, arguments and in-place results are those of ``mmcv._ext`` in mmcv 2.x, so that ``mmcv.ops``
calls them unchanged, on any device. float16 and bfloat16 inputs are computed in float32, and the
result is rounded once. Operators that are not implemented can be imported, and raise an error when
they are called.
"""

from .bbox_overlaps import bbox_overlaps
from .carafe import carafe_backward, carafe_forward, carafe_naive_backward, carafe_naive_forward
from .deform_conv import (
    deform_conv_backward_input,
    deform_conv_backward_parameters,
    deform_conv_forward,
    modulated_deform_conv_backward,
    modulated_deform_conv_forward,
)
from .deform_roi_pool import deform_roi_pool_backward, deform_roi_pool_forward
from .focal_loss import (
    sigmoid_focal_loss_backward,
    sigmoid_focal_loss_forward,
    softmax_focal_loss_backward,
    softmax_focal_loss_forward,
)
from .info import get_compiler_version, get_compiling_cuda_version
from .masked_conv import masked_col2im_forward, masked_im2col_forward
from .missing import MissingOpError, missing_op
from .ms_deform_attn import ms_deform_attn_backward, ms_deform_attn_forward
from .nms import nms, nms_match
from .psamask import psamask_backward, psamask_forward
from .roi_align import roi_align_backward, roi_align_forward
from .roi_pool import roi_pool_backward, roi_pool_forward
from .soft_nms import softnms
from .sync_bn import (
    sync_bn_backward_data,
    sync_bn_backward_param,
    sync_bn_forward_mean,
    sync_bn_forward_output,
    sync_bn_forward_var,
)

OPS = {
    op.__name__: op
    for op in (
        bbox_overlaps,
        carafe_backward,
        carafe_forward,
        carafe_naive_backward,
        carafe_naive_forward,
        deform_conv_backward_input,
        deform_conv_backward_parameters,
        deform_conv_forward,
        deform_roi_pool_backward,
        deform_roi_pool_forward,
        get_compiler_version,
        get_compiling_cuda_version,
        masked_col2im_forward,
        masked_im2col_forward,
        modulated_deform_conv_backward,
        modulated_deform_conv_forward,
        ms_deform_attn_backward,
        ms_deform_attn_forward,
        nms,
        nms_match,
        psamask_backward,
        psamask_forward,
        roi_align_backward,
        roi_align_forward,
        roi_pool_backward,
        roi_pool_forward,
        sigmoid_focal_loss_backward,
        sigmoid_focal_loss_forward,
        softmax_focal_loss_backward,
        softmax_focal_loss_forward,
        softnms,
        sync_bn_backward_data,
        sync_bn_backward_param,
        sync_bn_forward_mean,
        sync_bn_forward_output,
        sync_bn_forward_var,
    )
}

__all__ = ['OPS', 'MissingOpError', 'missing_op', *OPS]
