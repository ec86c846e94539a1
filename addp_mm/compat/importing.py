# Copyright (c) addp_mm contributors. Apache-2.0.
"""Call a function with a module after its import, and replace functions of the module.

A patch of a large package must not import the package: ``import addp_mm`` must be fast, and a
package that is not used must not be imported.
"""

import functools
import sys
from collections import defaultdict
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from importlib import import_module
from importlib.abc import MetaPathFinder
from types import ModuleType
from typing import Any

Callback = Callable[[ModuleType], object]
_CALLBACKS: defaultdict[str, list[Callback]] = defaultdict(list)


def when_imported(name: str, callback: Callback) -> None:
    """Call ``callback(module)`` after the module is imported; now if it is imported already.

    Args:
        name: Dotted name of the module.
        callback: Function of the module. Registering an equal function again changes nothing.
    """
    if callback in _CALLBACKS[name]:
        return
    _CALLBACKS[name].append(callback)
    if not any(isinstance(finder, _CallbackFinder) for finder in sys.meta_path):
        sys.meta_path.insert(0, _CallbackFinder())
    if name in sys.modules:
        with _on_the_cpu():
            callback(sys.modules[name])


class _CallbackFinder(MetaPathFinder):
    """Calls the other finders, and adds the callbacks to the modules that they find."""

    def __init__(self) -> None:
        self._searched: set[str] = set()

    def find_spec(self, name, path=None, target=None):
        # another finder of this kind, such as that of a coverage tool, calls this one
        if name not in _CALLBACKS or name in self._searched:
            return None
        self._searched.add(name)
        try:
            found = (finder.find_spec(name, path, target) for finder in sys.meta_path if finder is not self)
            spec = next((spec for spec in found if spec is not None), None)
        finally:
            self._searched.discard(name)
        if spec is not None and hasattr(spec.loader, 'exec_module'):
            _call_after_execution(spec.loader, name)
        return spec


def _call_after_execution(loader: Any, name: str) -> None:
    # The loader stays the same object: resources are read through it, and tools check its class.
    execute = loader.exec_module

    def execute_and_call(module: ModuleType) -> None:
        execute(module)
        with _on_the_cpu():
            for callback in _CALLBACKS[name]:
                callback(module)

    loader.exec_module = execute_and_call


def _on_the_cpu() -> AbstractContextManager:
    """Patches compute small examples to find a fault.

    A module may be imported while a model is built on the meta device, which computes nothing.
    """
    torch = sys.modules.get('torch')
    return torch.device('cpu') if torch is not None and hasattr(torch, 'nn') else nullcontext()


def replace(module: ModuleType, name: str, make: Callable[[Callable], Callable]) -> None:
    """Replace a function of a module, also in modules that have imported it by name.

    Args:
        module: Module that defines the function.
        name: Name of the function.
        make: Takes the original and returns the replacement. Its ``__wrapped__`` is set to the
            original.
    """
    original = getattr(module, name)
    replacement = functools.wraps(original)(make(original))
    setattr(module, name, replacement)
    for other in list(sys.modules.values()):
        if getattr(other, '__dict__', {}).get(name) is original:
            setattr(other, name, replacement)


def replace_method(cls: type, name: str, make: Callable[[Callable], Callable]) -> None:
    """Replace a method of a class, which may be static; ``__wrapped__`` is the original."""
    original = getattr(cls, name)
    replacement = functools.wraps(original)(make(original))
    is_static = isinstance(vars(cls).get(name), staticmethod)
    setattr(cls, name, staticmethod(replacement) if is_static else replacement)


class ModuleView(ModuleType):
    """A module with some names added or replaced, for use by one other module.

    Args:
        name: Its name. It is imported when another attribute is first used.
        **replaced: The names.
    """

    def __init__(self, name: str, **replaced: Any) -> None:
        super().__init__(name)
        self.__dict__.update(replaced)

    def __getattr__(self, name: str) -> Any:
        return getattr(import_module(self.__name__), name)
