# Copyright (c) addp_mm contributors. Apache-2.0.
"""mmpretrain's inferencers beside those of other packages in one process (mmpretrain issue 1839)."""
from types import ModuleType

from addp_mm.compat.importing import replace_method


def mend_inferencer_scope(base: ModuleType) -> None:
    """Build an inferencer's transforms in mmpretrain's scope, whichever scope another package left behind.

    mmdet's and mmsegmentation's inferencers set the default scope for the whole process, and mmpretrain's build their
    pipeline in it: ``PackInputs is not in the mmseg::transform registry``. Applied to ``mmpretrain.apis.base``.
    """

    def make(original):

        def __init__(self, *args, **kwargs) -> None:
            from mmengine.registry import DefaultScope

            with DefaultScope.overwrite_default_scope('mmpretrain'):
                original(self, *args, **kwargs)

        return __init__

    replace_method(base.BaseInferencer, '__init__', make)
