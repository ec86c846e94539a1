# Copyright (c) addp_mm contributors. Apache-2.0.
"""What mmcv's environment report asks of its extension."""

import torch


def get_compiler_version() -> str:
    """Say that nothing was compiled."""
    return 'n/a (operators of mmcv._ext provided by addp_mm from torchvision and torch)'


def get_compiling_cuda_version() -> str:
    """Return the CUDA version that torch was built with, or mmcv's own words for none."""
    return torch.version.cuda or 'not available'
