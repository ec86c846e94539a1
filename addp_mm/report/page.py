# Copyright (c) addp_mm contributors. Apache-2.0.
"""A report as one HTML file: sections of figures, each with a caption and its commands."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from addp_mm.checkpoints.atomic_write import write_text
from addp_mm.report.figures import Picture

TEMPLATES = Path(__file__).with_name('templates')


def render(template: str, **values: Any) -> str:
    """Fill a template of this package; all values are escaped."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    environment = Environment(loader=FileSystemLoader(TEMPLATES), autoescape=True, undefined=StrictUndefined)
    return environment.get_template(template).render(**values)


@dataclass(frozen=True)
class Table:
    """A table of text. The first cell of a row is its name.

    Args:
        header: Titles of the columns.
        rows: Cells of each row.
        commands: Whether the last column has commands. Defaults to False.
    """

    header: Sequence[str]
    rows: Sequence[Sequence[str]]
    commands: bool = False


@dataclass(frozen=True)
class Figure:
    """Pictures or a table.

    Args:
        caption: Describes the content.
        commands: The commands that created it, as you type them.
        pictures: Pictures side by side. Defaults to (): none.
        table: The table. Defaults to None.

    Raises:
        ValueError: There is no caption, no command, or nothing to show.
    """

    caption: str
    commands: Sequence[str]
    pictures: Sequence[Picture] = ()
    table: Table | None = None

    def __post_init__(self) -> None:
        if not (self.caption and self.commands and (self.pictures or self.table)):
            raise ValueError('a figure needs a caption, the commands that created it, and pictures or a table')


@dataclass(frozen=True)
class Section:
    """A heading, a paragraph and figures."""

    heading: str
    figures: Sequence[Figure]
    text: str = ''


@dataclass(frozen=True)
class Page:
    """A report. It loads no other file.

    Args:
        title: Title of the page.
        lead: First paragraph.
        sections: Sections in order.
        warning: A notice at the top of the page. Defaults to '': none.
    """

    title: str
    lead: str
    sections: Sequence[Section]
    warning: str = ''

    def html(self) -> str:
        """The page as HTML."""
        return render('page.html.j2', **vars(self))

    def write(self, path: Path) -> int:
        """Write the page; returns its size in bytes."""
        write_text(path, self.html())
        return path.stat().st_size
