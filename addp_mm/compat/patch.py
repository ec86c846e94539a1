# Copyright (c) addp_mm contributors. Apache-2.0.
"""One patch of an OpenMMLab package, and the list of applied patches."""

from collections.abc import Callable
from dataclasses import dataclass
from types import ModuleType

_IN_FORCE: list['Patch'] = []


@dataclass(frozen=True)
class Patch:
    """Works around one fault of a package.

    Attributes:
        name: Short name for tables and logs.
        module: Dotted name of the module that has the fault.
        fault: The failure without the patch, in one line.
        apply: Patches the module if it has the fault; returns whether it has the fault.
    """

    name: str
    module: str
    fault: str
    apply: Callable[[ModuleType], bool]

    def __call__(self, module: ModuleType) -> None:
        """Patch a module that was just imported, and record whether it had the fault."""
        if self.apply(module):
            _IN_FORCE.append(self)


def applied() -> tuple[Patch, ...]:
    """The patches that were applied so far in this process, in their order."""
    return tuple(_IN_FORCE)
