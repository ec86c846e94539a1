# Copyright (c) addp_mm contributors. Apache-2.0.
"""What ``compile=True`` leaves uncompiled, because it would be compiled again in later steps."""

from collections.abc import Callable
from typing import Any

from addp_mm.compat.importing import replace, replace_method


def patch_data_preprocessors(module: Any) -> bool:
    """Leave data preprocessors uncompiled: they depend on the sizes and objects of the images.

    Args:
        module: ``mmengine.model.base_model.data_preprocessor``.

    Returns:
        True.
    """
    _leave_out(module.BaseDataPreprocessor, 'forward')
    _exclude(module.ImgDataPreprocessor, ('forward',))
    return True


def patch_optim_wrappers(module: Any) -> bool:
    """Leave the update uncompiled: it depends on learning rates, counters and logged numbers.

    The backward pass of a compiled forward pass is compiled with it. The update is a few fused
    kernels without compilation, too.

    Args:
        module: ``mmengine.optim.optimizer.base``.

    Returns:
        True.
    """
    _leave_out(module.BaseOptimWrapper, 'update_params')
    return True


def patch_detectors(module: Any) -> bool:
    """Compile what a detector calls in ``loss``, and not ``loss`` itself, which copies boxes.

    Args:
        module: ``mmdet.models.detectors.base``.

    Returns:
        True.
    """
    _leave_out(module.BaseDetector, 'loss', inner=False)
    return True


def patch_detection_heads(module: Any) -> bool:
    """Leave the heads of a detector uncompiled: they depend on the number of boxes.

    Args:
        module: A module of mmdet with a base class of heads.

    Returns:
        True.
    """
    for name in ('BaseDenseHead', 'BaseMaskHead', 'BaseRoIHead'):
        if hasattr(module, name):
            _leave_out(getattr(module, name), 'loss', 'loss_and_predict')
    return True


def patch_accuracy(module: Any) -> bool:
    """Leave the logged accuracy uncompiled: it depends on the number of labelled pixels.

    Args:
        module: ``mmseg.models.losses.accuracy``.

    Returns:
        True.
    """
    import torch

    replace(module, 'accuracy', torch.compiler.disable)
    return True


def patch_drop_path(module: Any) -> bool:
    """Make drop rates Python floats. Each rate that is a number of numpy ends a compiled graph.

    Args:
        module: ``mmcv.cnn.bricks.drop``.

    Returns:
        True.
    """

    def make(original):

        def __init__(self, drop_prob=0.1):
            original(self, float(drop_prob))

        return __init__

    replace_method(module.DropPath, '__init__', make)
    return True


def _leave_out(base: Any, *names: str, inner: bool = True) -> None:
    """Exclude methods of a class, and of all classes that are derived from it later.

    Args:
        base: The class.
        *names: Names of the methods.
        inner: Whether the functions that they call are excluded, too. Defaults to True.
    """
    _exclude(base, names, inner)

    def __init_subclass__(cls: type, **kwargs: Any) -> None:
        super(base, cls).__init_subclass__(**kwargs)
        _exclude(cls, names, inner)

    base.__init_subclass__ = classmethod(__init_subclass__)


def _exclude(cls: type, names: tuple[str, ...], inner: bool = True) -> None:
    """Exclude methods that a class defines itself."""
    import torch

    for name in names:
        method: Callable | None = vars(cls).get(name)
        if method is not None and not getattr(method, '__isabstractmethod__', False):
            setattr(cls, name, torch.compiler.disable(method, recursive=inner))
