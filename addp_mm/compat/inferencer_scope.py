# Copyright (c) addp_mm contributors. Apache-2.0.
"""Models of several packages side by side in one process (mmpretrain issue 1839)."""

from types import ModuleType

from addp_mm.compat.importing import replace, replace_method


def mend_inferencer_scope(base: ModuleType) -> None:
    """Build an inferencer's transforms in mmpretrain's scope, whichever scope another package left behind.

    mmdet's and mmsegmentation's inferencers set the default scope for the whole process, and
    mmpretrain's build their pipeline in it: ``PackInputs is not in the mmseg::transform registry``.
    Applied to ``mmpretrain.apis.base``.
    """

    def make(original):

        def __init__(self, *args, **kwargs) -> None:
            from mmengine.registry import DefaultScope

            with DefaultScope.overwrite_default_scope('mmpretrain'):
                original(self, *args, **kwargs)

        return __init__

    replace_method(base.BaseInferencer, '__init__', make)


def mend_inference_scope(inference: ModuleType) -> None:
    """Let a model take pictures in the scope of its own config, whichever scope another package left behind.

    ``init_detector`` and ``init_model`` set the default scope for the whole process, and ``inference_detector`` and
    ``inference_model`` build the model's test pipeline in whatever it is by then: ``PackSegInputs is not in the
    mmdet::transform registry``. Applied to ``mmdet.apis.inference`` and ``mmseg.apis.inference``.
    """
    package = inference.__name__.split('.')[0]

    def make(original):

        def infer(model, *args, **kwargs):
            from mmengine.registry import DefaultScope

            with DefaultScope.overwrite_default_scope(model.cfg.get('default_scope', package)):
                return original(model, *args, **kwargs)

        return infer

    replace(inference, 'inference_detector' if package == 'mmdet' else 'inference_model', make)
