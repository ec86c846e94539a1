# Copyright (c) addp_mm contributors. Apache-2.0.
"""Functions of mmcv that call ``torch.cuda`` themselves, on other devices."""

from types import SimpleNamespace
from typing import Any

from addp_mm.compat.importing import ModuleView, replace_method


def patch_current_device(module: Any) -> bool:
    """Let functions select a GPU only if there is one; mmcv fails in a process without CUDA.

    Args:
        module: ``mmcv.ops.knn`` or ``mmcv.ops.points_in_boxes``.

    Returns:
        Whether its functions ask for the current CUDA device.
    """
    import torch

    def ask():
        points, boxes = torch.zeros(1, 2, 3), torch.zeros(1, 1, 7)
        if hasattr(module, 'knn'):
            module.knn(1, points)
        else:
            module.points_in_boxes_part(points, boxes)
            module.points_in_boxes_all(points, boxes)

    if not _needs_cuda(module, ask):
        return False

    def set_device(index: int) -> None:
        if index >= 0 and torch.cuda.is_available():  # a tensor on the CPU has the index -1
            torch.cuda.set_device(index)

    module.torch = ModuleView('torch', cuda=SimpleNamespace(current_device=lambda: None, set_device=set_device))
    return True


def patch_furthest_points(module: Any) -> bool:
    """Create the tensors of ``furthest_point_sample`` on the device of the points.

    Args:
        module: ``mmcv.ops.furthest_point_sample``.

    Returns:
        Whether it creates CUDA tensors, whatever the device of the points.
    """
    import torch

    if not _needs_cuda(module, lambda: module.furthest_point_sample(torch.zeros(1, 2, 3), 1)):
        return False

    def make(original):

        def forward(ctx, points_xyz, num_points):
            batch, number = points_xyz.shape[:2]
            picked = points_xyz.new_empty(batch, num_points, dtype=torch.int32)
            nearest = points_xyz.new_full((batch, number), 1e10, dtype=torch.float32)
            module.ext_module.furthest_point_sampling_forward(
                points_xyz.contiguous(), nearest, picked, b=batch, n=number, m=num_points
            )
            ctx.mark_non_differentiable(picked)
            return picked

        return forward

    replace_method(module.FurthestPointSampling, 'forward', make)
    return True


def patch_carafe_naive(module: Any) -> bool:
    """Compute the gradient of ``carafe_naive`` on any device; mmcv asserts that it is CUDA.

    Args:
        module: ``mmcv.ops.carafe``.

    Returns:
        Whether the gradient on the CPU is refused.
    """
    # called without autograd: the module can be imported where there is none
    ctx = SimpleNamespace(saved_tensors=(None, None), kernel_size=1, group_size=1, scale_factor=1)
    try:
        module.CARAFENaiveFunction.backward(ctx, SimpleNamespace(is_cuda=False))
    except (AssertionError, AttributeError):  # mmcv 2.2 asks for an attribute of another torch
        replace_method(module.CARAFENaiveFunction, 'backward', lambda _: _carafe_naive_backward(module))
        return True
    except TypeError:  # gradients like None
        pass
    return False


def _carafe_naive_backward(module: Any) -> Any:
    import torch

    def backward(ctx, grad_output):
        features, masks = ctx.saved_tensors
        grads = torch.zeros_like(features), torch.zeros_like(masks)
        settings = dict(kernel_size=ctx.kernel_size, group_size=ctx.group_size, scale_factor=ctx.scale_factor)
        module.ext_module.carafe_naive_backward(grad_output.contiguous(), features, masks, *grads, **settings)
        return *grads, None, None, None

    return backward


class _Nothing:
    """Operators that compute nothing."""

    def __getattr__(self, name: str) -> Any:
        return lambda *args, **kwargs: None


def _needs_cuda(module: Any, call: Any) -> bool:
    """Whether a call with tensors on the CPU uses ``torch.cuda``; CUDA itself is not started."""
    replaced = module.torch, module.ext_module
    module.torch, module.ext_module = ModuleView('torch', cuda=SimpleNamespace()), _Nothing()
    try:
        call()
    except (AttributeError, UnboundLocalError):  # the second without any GPU, in mmcv 2.2
        return True
    finally:
        module.torch, module.ext_module = replaced
    return False
