# Copyright (c) addp_mm contributors. Apache-2.0.
"""Features that addp_mm adds to the OpenMMLab packages: safe checkpoints, and configs by name.

:mod:`addp_mm.compat` works around faults of those packages. This module adds features by the same
mechanism. They are always on, also with ``ADDP_MM_COMPAT=off``.
"""

from addp_mm.checkpoints.loaders import register_checkpoint_loaders
from addp_mm.compat.importing import when_imported
from addp_mm.config.shipped_names import add_base_names, add_inferencer_names, add_models_to_hub

EXTENSIONS = {
    'mmengine.config.config': add_base_names,
    'mmengine.infer.infer': add_inferencer_names,
    'mmengine.runner.checkpoint': register_checkpoint_loaders,
    'mmpretrain.apis.model': add_models_to_hub,
}


def install() -> None:
    """Add every extension when its module is imported. A second call changes nothing."""
    for module, extend in EXTENSIONS.items():
        when_imported(module, extend)
