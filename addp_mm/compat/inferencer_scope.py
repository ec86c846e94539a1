# Copyright (c) addp_mm contributors. Apache-2.0.
"""Models of several packages in one process (mmpretrain issue 1839)."""

from typing import Any

from addp_mm.compat.importing import replace, replace_method


def patch_inferencer_scope(base: Any) -> bool:
    """Build the transforms of mmpretrain's inferencers in mmpretrain's scope.

    The inferencers of mmdet and mmsegmentation set the default scope of the whole process, and
    mmpretrain's build their pipeline in it: ``PackInputs is not in the mmseg::transform registry``.

    Args:
        base: ``mmpretrain.apis.base``.

    Returns:
        True.
    """

    def make(original):

        def __init__(self, *args, **kwargs) -> None:
            from mmengine.registry import DefaultScope

            with DefaultScope.overwrite_default_scope('mmpretrain'):
                original(self, *args, **kwargs)

        return __init__

    replace_method(base.BaseInferencer, '__init__', make)
    return True


def patch_inference_scope(inference: Any) -> bool:
    """Build a model's test pipeline in the scope of the model's config.

    ``init_detector`` and ``init_model`` set the default scope of the whole process.
    ``inference_detector`` and ``inference_model`` build the pipeline in the scope that was set
    last: ``PackSegInputs is not in the mmdet::transform registry``.

    Args:
        inference: ``mmdet.apis.inference`` or ``mmseg.apis.inference``.

    Returns:
        True.
    """
    package = inference.__name__.split('.')[0]

    def make(original):

        def infer(model, *args, **kwargs):
            from mmengine.registry import DefaultScope

            with DefaultScope.overwrite_default_scope(model.cfg.get('default_scope', package)):
                return original(model, *args, **kwargs)

        return infer

    replace(inference, 'inference_detector' if package == 'mmdet' else 'inference_model', make)
    return True
