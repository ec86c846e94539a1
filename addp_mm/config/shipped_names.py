# Copyright (c) addp_mm contributors. Apache-2.0.
"""Make mmengine and mmpretrain find addp_mm's configs and models by name.

mmengine has a fixed table of packages whose configs ``_base_ = 'package::…'`` can inherit. An entry
for addp_mm would be wrong: registries use the table too, and an inherited config gets the package's
name as scope, but most types in addp_mm's configs are those of mmdet, mmseg or mmpretrain.
"""

import functools
from collections.abc import Callable
from typing import Any

from addp_mm.compat.importing import replace_method
from addp_mm.config.shipped import SCHEME, config_path, find_model, metafiles, shipped_root


def add_base_names(config: Any) -> None:
    """Make ``_base_ = 'addp_mm::cls/…'`` find a shipped config.

    Args:
        config: The module ``mmengine.config.config``.
    """
    original = config.Config._get_cfg_path  # noqa: SLF001  (mmengine has no public way)

    @functools.wraps(original)
    def _get_cfg_path(cfg_path: str, filename: str) -> tuple[str, str | None]:
        return (config_path(cfg_path), None) if cfg_path.startswith(SCHEME) else original(cfg_path, filename)

    config.Config._get_cfg_path = staticmethod(_get_cfg_path)  # noqa: SLF001


def add_inferencer_names(infer: Any) -> None:
    """Make Inferencers find the models of addp_mm's index by name, after those of their package.

    Args:
        infer: The module ``mmengine.infer.infer``.
    """

    def make(original: Callable) -> Callable:

        def _load_model_from_metafile(self: Any, model: str) -> tuple:
            try:
                return original(self, model)
            except ValueError:
                found = find_model(model)
                if found is None:
                    raise
            path, weights = found
            return infer.Config.fromfile(path), weights

        return _load_model_from_metafile

    replace_method(infer.BaseInferencer, '_load_model_from_metafile', make)


def add_models_to_hub(model: Any) -> None:
    """Add classifiers and pre-training algorithms to ``mmpretrain.list_models`` and ``get_model``.

    Args:
        model: The module ``mmpretrain.apis.model``.
    """
    hub = model.ModelHub
    original = hub._register_mmpretrain_models  # noqa: SLF001  (mmpretrain has no public way)

    @functools.cache
    def add_ours() -> None:
        for metafile in metafiles():
            if metafile.parent.name in ('cls', 'pretrain'):
                hub.register_model_index(metafile, config_prefix=shipped_root())

    @functools.wraps(original)
    def _register_mmpretrain_models(cls: Any) -> None:  # noqa: ARG001  (a class method)
        original()
        add_ours()

    hub._register_mmpretrain_models = classmethod(_register_mmpretrain_models)  # noqa: SLF001
