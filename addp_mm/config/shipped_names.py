# Copyright (c) addp_mm contributors. Apache-2.0.
"""addp_mm's configs by name, where mmengine and mmpretrain know only the names of OpenMMLab's own packages.

mmengine keeps a fixed table of packages whose configs ``_base_ = 'package::…'`` may inherit. An
entry for addp_mm in it would not do: the table also decides how registries import a package, and an
inherited config gets the package's name as scope, which is wrong for configs whose types are mostly
those of mmdet, mmseg or mmpretrain.
"""

import functools
from types import ModuleType

from addp_mm.compat.importing import replace_method
from addp_mm.config.shipped import SCHEME, ShippedFileError, config_path, find_model, metafiles, shipped_root


def add_base_names(config: ModuleType) -> None:
    """Let ``_base_ = 'addp_mm::cls/…'`` find a shipped config. Applied to ``mmengine.config.config``."""
    original = config.Config._get_cfg_path

    @functools.wraps(original)
    def _get_cfg_path(cfg_path: str, filename: str) -> tuple[str, str | None]:
        return (config_path(cfg_path), None) if cfg_path.startswith(SCHEME) else original(cfg_path, filename)

    config.Config._get_cfg_path = staticmethod(_get_cfg_path)


def add_inferencer_names(infer: ModuleType) -> None:
    """Let an Inferencer of any scope take the name of a model in addp_mm's index; its own package's names go first.

    Applied to ``mmengine.infer.infer``.
    """

    def make(original):

        def _load_model_from_metafile(self, model: str):
            try:
                return original(self, model)
            except ValueError:
                found = _find_model(model)
                if found is None:
                    raise
            path, weights = found
            return infer.Config.fromfile(path), weights

        return _load_model_from_metafile

    replace_method(infer.BaseInferencer, '_load_model_from_metafile', make)


def add_models_to_hub(model: ModuleType) -> None:
    """Add classifiers and pre-trainings to ``mmpretrain.list_models`` and ``get_model``, once its own are there.

    Applied to ``mmpretrain.apis.model``.
    """
    hub = model.ModelHub
    original = hub._register_mmpretrain_models
    registered = []

    @functools.wraps(original)
    def _register_mmpretrain_models(cls) -> None:
        original()
        if registered:
            return
        registered.append(True)
        for metafile in _metafiles():
            if metafile.parent.name in ('cls', 'pretrain'):
                cls.register_model_index(metafile, config_prefix=shipped_root())

    hub._register_mmpretrain_models = classmethod(_register_mmpretrain_models)


# A package that came without its configs still lets others serve theirs.
def _find_model(name: str) -> tuple[str, str | None] | None:
    try:
        return find_model(name)
    except ShippedFileError:
        return None


def _metafiles() -> list:
    try:
        return list(metafiles())
    except ShippedFileError:
        return []
