# Copyright (c) addp_mm contributors. Apache-2.0.
"""Versions for mmcv's environment report."""

import torch


def get_compiler_version() -> str:
    """A text for the report: nothing was compiled."""
    return 'n/a (operators of mmcv._ext provided by addp_mm from torchvision and torch)'


def get_compiling_cuda_version() -> str:
    """CUDA version of torch, or mmcv's text for none."""
    return torch.version.cuda or 'not available'
