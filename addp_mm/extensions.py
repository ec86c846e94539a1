# Copyright (c) addp_mm contributors. Apache-2.0.
"""Features that addp_mm adds to the OpenMMLab packages: safe checkpoints, and configs by name.

:mod:`addp_mm.compat` works around faults of those packages. This module adds features by the same
mechanism. They are always on, also with ``ADDP_MM_COMPAT=off``.
"""

from typing import Any

from addp_mm.checkpoints.loaders import register_checkpoint_loaders
from addp_mm.checkpoints.saving import use_atomic_saving
from addp_mm.compat.importing import when_imported
from addp_mm.config.shipped_names import add_base_names, add_inferencer_names, add_models_to_hub


def _read_and_write_checkpoints(module: Any) -> None:
    register_checkpoint_loaders(module)
    use_atomic_saving(module)


EXTENSIONS = {
    'mmengine.config.config': add_base_names,
    'mmengine.infer.infer': add_inferencer_names,
    'mmengine.runner.checkpoint': _read_and_write_checkpoints,
    # these use mmengine's function by its name
    'mmengine.runner': use_atomic_saving,
    'mmengine.runner.runner': use_atomic_saving,
    'mmengine._strategy.deepspeed': use_atomic_saving,
    'mmengine._strategy.colossalai': use_atomic_saving,
    'mmpretrain.apis.model': add_models_to_hub,
}


def install() -> None:
    """Add every extension when its module is imported. A second call changes nothing."""
    for module, extend in EXTENSIONS.items():
        when_imported(module, extend)
