# Copyright (c) addp_mm contributors. Apache-2.0.
"""Features that addp_mm adds to the OpenMMLab packages: safe files, and configs by name.

:mod:`addp_mm.compat` works around faults of those packages. This module adds features by the same
mechanism. They are always on, also with ``ADDP_MM_COMPAT=off``.
"""

import os

from addp_mm.checkpoints.loaders import register_checkpoint_loaders
from addp_mm.checkpoints.saving import use_atomic_saving
from addp_mm.compat.importing import when_imported
from addp_mm.config.registered_types import guard_registries
from addp_mm.config.shipped_names import add_base_names, add_inferencer_names, add_models_to_hub
from addp_mm.config.text_as_data import read_dumps, read_text_as_data, write_values_as_they_are
from addp_mm.safe_files.in_openmmlab import (
    name_refused_files,
    read_arrays_as_data,
    read_pickles_as_data,
    read_yaml_as_data,
    unpack_inside_the_folder,
)

EXTENSIONS = (
    ('mmengine.config.config', add_base_names),
    ('mmengine.config.config', read_text_as_data),
    ('mmengine.config.config', read_dumps),
    ('mmengine.config.config', write_values_as_they_are),
    ('mmengine.fileio.handlers.pickle_handler', read_pickles_as_data),
    ('mmengine.fileio.handlers.yaml_handler', read_yaml_as_data),
    ('mmengine.fileio.io', name_refused_files),
    ('mmengine.infer.infer', add_inferencer_names),
    ('mmengine.registry.registry', guard_registries),
    ('mmengine.runner.checkpoint', register_checkpoint_loaders),
    ('mmengine.runner.checkpoint', use_atomic_saving),
    # these use mmengine's function by its name
    ('mmengine.runner', use_atomic_saving),
    ('mmengine.runner.runner', use_atomic_saving),
    ('mmengine._strategy.deepspeed', use_atomic_saving),
    ('mmengine._strategy.colossalai', use_atomic_saving),
    ('mmdet.datasets.openimages', read_arrays_as_data),
    ('mmpretrain.apis.model', add_models_to_hub),
    ('mmpretrain.datasets.cifar', read_pickles_as_data),
    ('mmpretrain.datasets.utils', unpack_inside_the_folder),
    ('mmpretrain.models.multimodal.ram.ram', read_pickles_as_data),
    ('mmseg.utils.io', read_pickles_as_data),
)


#: Environment variable with the most pixels of an image that OpenCV decodes.
OPENCV_LIMIT = 'OPENCV_IO_MAX_IMAGE_PIXELS'
_MOST_PIXELS = 178_956_970  # as Pillow; OpenCV's own limit is six times as high


def install() -> None:
    """Add every extension when its module is imported. A second call changes nothing."""
    os.environ.setdefault(OPENCV_LIMIT, str(_MOST_PIXELS))
    for module, extend in EXTENSIONS:
        when_imported(module, extend)
