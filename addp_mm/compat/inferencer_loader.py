# Copyright (c) addp_mm contributors. Apache-2.0.
"""Inferencers of mmdet and mmsegmentation for pipelines with ``addp_mm.LoadImage``."""

from typing import Any

from addp_mm.compat.importing import replace_method

_NAME = 'addp_mm.LoadImage'


def patch_inferencer_loader(module: Any) -> bool:
    """Make an inferencer read files with ``addp_mm.LoadImage`` if its model was trained with it.

    Both inferencers look for ``LoadImageFromFile`` by name and refuse a test pipeline without it.
    They read images with it, which drops the alpha channel of transparent images. Pipelines with
    ``LoadImageFromFile`` are not changed.

    Args:
        module: ``mmdet.apis.det_inferencer`` or ``mmseg.apis.mmseg_inferencer``.

    Returns:
        True.
    """
    inferencer = getattr(module, 'DetInferencer', None) or module.MMSegInferencer
    replace_method(inferencer, '_init_pipeline', _make_init_pipeline)
    return True


def _make_init_pipeline(original):

    def _init_pipeline(self, cfg):
        transforms = cfg.test_dataloader.dataset.pipeline
        index = next((k for k, transform in enumerate(transforms) if _is_ours(transform['type'])), None)
        if index is None:
            return original(self, cfg)
        from mmengine.registry import TRANSFORMS

        reader = TRANSFORMS.build(dict(transforms[index]))
        transforms[index] = type(transforms[index])(type='LoadImageFromFile', to_float32=reader.to_float32)
        pipeline = original(self, cfg)
        (loader,) = (one for one in pipeline.transforms if type(one).__name__ == 'InferencerLoader')
        loader.from_file = reader
        return pipeline

    return _init_pipeline


def _is_ours(kind) -> bool:
    return kind == _NAME or getattr(kind, '__module__', '') == 'addp_mm.datasets.readers.load_image'
