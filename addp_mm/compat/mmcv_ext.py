# Copyright (c) addp_mm contributors. Apache-2.0.
"""Provide ``mmcv._ext`` if mmcv was installed without its compiled operators.

The finder is the last on ``sys.meta_path``: Python calls it only if all others have failed, so that
a compiled ``mmcv._ext`` is always used if there is one. Neither mmcv nor torchvision is imported
before ``mmcv._ext`` is.
"""

import sys
from collections.abc import Sequence
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType

EXT_NAME = 'mmcv._ext'


class MMCVExtFinder(MetaPathFinder, Loader):
    """Finds and loads ``mmcv._ext``, with the operators of :mod:`addp_mm.compat.ops`."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """Return a spec for ``mmcv._ext``, and None for all other names."""
        return ModuleSpec(EXT_NAME, MMCVExtFinder(), origin='addp_mm.compat.ops') if fullname == EXT_NAME else None

    def create_module(self, spec: ModuleSpec) -> None:
        """Let Python create the module."""

    def exec_module(self, module: ModuleType) -> None:
        """Fill the module with the operators."""
        from addp_mm.compat import ops

        module.__doc__ = ops.__doc__
        vars(module).update(ops.OPS, __getattr__=ops.missing_op)


def install_mmcv_ext() -> None:
    """Add the finder to ``sys.meta_path``. A second call changes nothing."""
    if not any(isinstance(finder, MMCVExtFinder) for finder in sys.meta_path):
        sys.meta_path.append(MMCVExtFinder())


def patch_mmcv_ext(module: ModuleType) -> bool:
    """Whether ``mmcv._ext`` has the operators of this package; a compiled one stays."""
    return module.__spec__ is not None and isinstance(module.__spec__.loader, MMCVExtFinder)
