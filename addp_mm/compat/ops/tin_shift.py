# Copyright (c) addp_mm contributors. Apache-2.0.
"""Temporal interlacing (Shao et al., TIN, https://arxiv.org/abs/2001.06499)."""

import torch
from torch import Tensor

from .common import mmcv_op


@mmcv_op
def tin_shift_forward(input: Tensor, shift: Tensor, output: Tensor) -> None:
    """Shift groups of channels along time.

    Args:
        input: (N, T, C, H * W) features.
        shift: (N, G) integers: frames by which each of G groups of channels is delayed.
        output: As ``input``; filled in place. Frames that come from outside stay as they are.
    """
    if output.numel() == 0:
        return
    batch, frames, channels = input.shape[:3]
    by_channel = shift.long().repeat_interleave(channels // shift.size(1), dim=1)  # (N, C)
    time = torch.arange(frames, device=input.device).view(1, -1, 1)
    source = (time - by_channel[:, None]).view(batch, frames, channels, 1)
    exists = (source >= 0) & (source < frames)
    moved = input.gather(1, source.clamp(0, frames - 1).expand_as(input))
    output.copy_(torch.where(exists, moved, output))


@mmcv_op
def tin_shift_backward(grad_output: Tensor, shift: Tensor, grad_input: Tensor) -> None:
    """Shift the gradient as :func:`tin_shift_forward` shifts the features.

    The compiled operator does the same. It is not the derivative, which has the opposite shift, but
    it is what weights were trained with, and what mmcv's tests expect.
    """
    tin_shift_forward(grad_output, shift, grad_input)
