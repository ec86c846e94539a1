# Copyright (c) addp_mm contributors. Apache-2.0.
"""Packages that mmdet and mmsegmentation import only when they are needed."""

from importlib import import_module
from importlib.util import find_spec
from typing import Any

from addp_mm.compat.importing import replace, replace_method
from addp_mm.errors import UserError


class MissingPackageError(UserError, ImportError):
    """A file format needs a package that is not installed."""


def patch_nifti(module: Any) -> bool:
    """Name the package that NIfTI files need.

    mmsegmentation prints the name and goes on, and fails with ``UnboundLocalError: FileHolder``.

    Args:
        module: ``mmseg.utils.io``.

    Returns:
        Whether nibabel is missing.
    """
    if find_spec('nibabel') is not None:
        return False

    def make(original):

        def datafrombytes(content, backend='numpy'):
            if backend == 'nifti':
                raise MissingPackageError(
                    'NIfTI files (.nii.gz) are read with nibabel, which is not installed: pip install nibabel'
                )
            return original(content, backend)

        return datafrombytes

    replace(module, 'datafrombytes', make)
    return True


_CLASSES = {
    'mmseg.models.decode_heads.mask2former_head': ('Mask2FormerHead', 'mmdet', 'pip install mmdet'),
    'mmseg.models.decode_heads.maskformer_head': ('MaskFormerHead', 'mmdet', 'pip install mmdet'),
    'mmseg.apis.remote_sense_inferencer': ('RSImage', 'osgeo', 'conda install gdal'),
}


def patch_class_without_package(module: Any) -> bool:
    """Name the package that a class of mmsegmentation needs.

    Without it, the class is made of an empty one, or uses None, and fails with a TypeError or an
    AttributeError.

    Args:
        module: A key of ``_CLASSES``.

    Returns:
        Whether the package is missing.
    """
    name, package, command = _CLASSES[module.__name__]
    if find_spec(package) is not None:
        return False

    def make(original):

        def __init__(self, *args, **kwargs):
            raise MissingPackageError(f"mmsegmentation's {name} needs {package}, which is not installed: {command}")

        return __init__

    replace_method(getattr(module, name), '__init__', make)
    return True


def patch_panoptic_annotations(module: Any) -> bool:
    """Let ``LoadPanopticAnnotations`` use the module ``panopticapi.utils``.

    It takes an attribute of the package. Where the two are not the same object, as in mmdet's own
    test with Python 3.9 or newer, masks become single booleans: ``'bool' object has no attribute
    'astype'``.

    Args:
        module: ``mmdet.datasets.transforms.loading``.

    Returns:
        True.
    """

    def make(original):

        def __init__(self, *args, **kwargs):
            original(self, *args, **kwargs)
            self.rgb2id = import_module('panopticapi.utils').rgb2id

        return __init__

    replace_method(module.LoadPanopticAnnotations, '__init__', make)
    return True
