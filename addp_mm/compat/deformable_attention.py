# Copyright (c) addp_mm contributors. Apache-2.0.
"""Multi-scale deformable attention on all devices by the operator, as mmcv has it on CUDA."""

from typing import Any

from addp_mm.compat.importing import replace
from addp_mm.compat.mmcv_ext import patch_mmcv_ext


def patch_deformable_attention(module: Any) -> bool:
    """Compute the attention off CUDA by :mod:`addp_mm.compat.ops.ms_deform_attn`.

    mmcv samples one level after the other there and keeps all samples for the backward pass. While
    a model is compiled, exported or computed without values, mmcv's function stays: it consists of
    plain operators.

    Args:
        module: ``mmcv.ops.multi_scale_deform_attn``.

    Returns:
        Whether the operators are those of this package: compiled ones may have no CPU kernel.
    """
    import torch

    if not patch_mmcv_ext(module.ext_module):
        return False

    def make(original):

        def multi_scale_deformable_attn_pytorch(value, value_spatial_shapes, sampling_locations, attention_weights):
            exported = torch.compiler.is_compiling() or torch.jit.is_tracing() or torch.onnx.is_in_onnx_export()
            if exported or value.is_meta:
                return original(value, value_spatial_shapes, sampling_locations, attention_weights)
            # mmcv's Function would round the locations to the dtype of the values
            wide = torch.promote_types(value.dtype, torch.float32)
            tensors = (tensor.to(wide) for tensor in (value, sampling_locations, attention_weights))
            shapes = torch.as_tensor(value_spatial_shapes, device=value.device)
            pixels = shapes.prod(1)
            values, locations, weights = tensors
            starts = pixels.cumsum(0) - pixels
            attended = module.MultiScaleDeformableAttnFunction.apply(values, shapes, starts, locations, weights, 64)
            return attended.to(torch.promote_types(value.dtype, attention_weights.dtype))

        return multi_scale_deformable_attn_pytorch

    replace(module, 'multi_scale_deformable_attn_pytorch', make)
    return True
