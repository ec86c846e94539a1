# Copyright (c) addp_mm contributors. Apache-2.0.
"""Answer ``import mmcv._ext`` where mmcv was installed without its compiled operators.

The finder stands last on ``sys.meta_path``: Python asks it only after every other finder has
failed, so a compiled ``mmcv._ext`` always wins. Neither mmcv nor torchvision is imported until
somebody imports ``mmcv._ext``.
"""

import sys
from collections.abc import Sequence
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType

EXT_NAME = 'mmcv._ext'


class MMCVExtFinder(MetaPathFinder, Loader):
    """Find and load one module, ``mmcv._ext``, made of :mod:`addp_mm.compat.ops`."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if fullname != EXT_NAME:
            return None
        return ModuleSpec(EXT_NAME, self, origin='addp_mm.compat.ops')

    def create_module(self, spec: ModuleSpec) -> None:
        return None

    def exec_module(self, module: ModuleType) -> None:
        from addp_mm.compat import ops

        module.__doc__ = ops.__doc__
        module.__getattr__ = ops.missing_op
        vars(module).update(ops.OPS)


def install_mmcv_ext() -> None:
    """Provide ``mmcv._ext`` to whoever imports it and has no compiled one. Calling it again changes nothing."""
    if not any(isinstance(finder, MMCVExtFinder) for finder in sys.meta_path):
        sys.meta_path.append(MMCVExtFinder())
