# Copyright (c) addp_mm contributors. Apache-2.0.
"""One line of the report of ``addp doctor``."""

import dataclasses
from typing import Literal


@dataclasses.dataclass(frozen=True)
class Finding:
    """One line of the report.

    Args:
        status: Severity.
        subject: The checked object.
        text: The result.
        remedy: A remedy. Defaults to '': none.
    """

    status: Literal['ok', 'warning', 'error']
    subject: str
    text: str
    remedy: str = ''


def first_line(error: BaseException) -> str:
    """Class and first line of an error."""
    return f'{type(error).__name__}: {(str(error).strip() or "no message").splitlines()[0]}'


def fits(version: str, specifier: str) -> bool:
    """Whether a version meets a specifier such as '>=2.6'."""
    from packaging.specifiers import SpecifierSet

    return SpecifierSet(specifier).contains(version, prereleases=True)
