# Copyright (c) addp_mm contributors. Apache-2.0.
"""Run a function on a module as soon as that module has been imported.

A mend of a large package must not import the package itself: ``import addp_mm`` stays cheap, and a
user who never touches mmsegmentation never pays for it.
"""

import functools
import sys
from collections import defaultdict
from collections.abc import Callable
from importlib.abc import MetaPathFinder
from types import ModuleType

Mend = Callable[[ModuleType], None]
_MENDS: defaultdict[str, list[Mend]] = defaultdict(list)


def when_imported(name: str, mend: Mend) -> None:
    """Call ``mend(module)`` once the module ``name`` has been executed; at once if it has been already.

    Args:
        name: Dotted name of the module.
        mend: Function of the module. Registering the same one again changes nothing.
    """
    if mend in _MENDS.get(name, ()):
        return
    _MENDS[name].append(mend)
    if not any(isinstance(finder, _MendingFinder) for finder in sys.meta_path):
        sys.meta_path.insert(0, _MendingFinder())
    if name in sys.modules:
        mend(sys.modules[name])


class _MendingFinder(MetaPathFinder):
    """Leaves the search to the finders behind it and adds the mends to what they found."""

    def find_spec(self, name, path=None, target=None):
        if name not in _MENDS:
            return None
        for finder in sys.meta_path:
            if finder is self:
                continue
            spec = finder.find_spec(name, path, target)
            if spec is not None:
                if hasattr(spec.loader, 'exec_module'):
                    _mend_after_execution(spec.loader, name)
                return spec
        return None


def _mend_after_execution(loader, name: str) -> None:
    # The loader stays the same object: resources are read through it, and tools ask for its class.
    execute = loader.exec_module

    def execute_and_mend(module: ModuleType) -> None:
        execute(module)
        for mend in _MENDS[name]:
            mend(module)

    loader.exec_module = execute_and_mend


def replace(module: ModuleType, name: str, make: Callable[[Callable], Callable]) -> None:
    """Replace a function of a module, also where other modules have imported it by name.

    Args:
        module: Where the function is defined.
        name: The function's name.
        make: Takes the original, returns its successor. The original stays reachable as
            ``__wrapped__``.
    """
    original = getattr(module, name)
    successor = functools.wraps(original)(make(original))
    setattr(module, name, successor)
    for other in list(sys.modules.values()):
        if getattr(other, '__dict__', {}).get(name) is original:
            setattr(other, name, successor)


def replace_method(cls: type, name: str, make: Callable[[Callable], Callable]) -> None:
    """Replace a method of a class; the original stays reachable as ``__wrapped__``."""
    original = getattr(cls, name)
    setattr(cls, name, functools.wraps(original)(make(original)))
