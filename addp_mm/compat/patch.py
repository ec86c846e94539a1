# Copyright (c) addp_mm contributors. Apache-2.0.
"""One patch of an OpenMMLab package, and the list of those in force."""

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
        fault: What fails without the patch, and when, in one line.
        apply: Patches the module if it has the fault; returns whether it has.
    """

    name: str
    module: str
    fault: str
    apply: Callable[[ModuleType], bool]

    def __call__(self, module: ModuleType) -> None:
        """Patch a module that was just imported, and keep in mind whether it had the fault."""
        if self.apply(module):
            _IN_FORCE.append(self)


def in_force() -> tuple[Patch, ...]:
    """The patches that were applied so far in this process, in that order."""
    return tuple(_IN_FORCE)
