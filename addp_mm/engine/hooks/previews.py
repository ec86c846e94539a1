# Copyright (c) addp_mm contributors. Apache-2.0.
"""What the preview hooks share: a model that is evaluating for a moment, and pictures to the visualizer."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch
from mmengine.runner import Runner
from torch import nn


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Eval mode without gradients; afterwards every module has the mode it had before."""
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        for module, mode in modes:
            module.training = mode


def show(runner: Runner, name: str, picture: np.ndarray) -> None:
    """Send a picture, uint8 (H, W, 3) RGB, to the visualizer's backends under the number of iterations done."""
    runner.visualizer.add_image(name, np.ascontiguousarray(picture), step=runner.iter + 1)
