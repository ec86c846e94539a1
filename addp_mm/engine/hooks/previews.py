# Copyright (c) addp_mm contributors. Apache-2.0.
"""Functions of the preview hooks: a model in eval mode, and figures for the visualizer."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch
from mmengine.runner import Runner
from torch import nn


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """A context with eval mode and without gradients; at its end every module has its old mode."""
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        for module, mode in modes:
            module.training = mode


def show(runner: Runner, name: str, figure: np.ndarray) -> None:
    """Send a figure to the visualizer's backends, at the number of iterations done.

    Args:
        runner: The runner.
        name: Name of the figure.
        figure: uint8 (H, W, 3), RGB.
    """
    runner.visualizer.add_image(name, np.ascontiguousarray(figure), step=runner.iter + 1)
