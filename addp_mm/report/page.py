# Copyright (c) addp_mm contributors. Apache-2.0.
"""A page in one file: sections of figures, each with its caption and the commands that made it."""

from __future__ import annotations

import re
from collections.abc import Sequence
from html import escape
from pathlib import Path

MAX_BYTES = 8_000_000
_EXTERNAL = re.compile(
    r"""(?:\b(?:src|href|srcset|data|action)\s*=\s*["']?|url\(\s*["']?|@import\s+["']?)(?!data:|#)"""
    r"""[^"'\s)>]+""",
    re.IGNORECASE,
)


def external_references(page: str) -> list[str]:
    """Attributes and style rules of an HTML page that would make a browser ask for another file."""
    # Only what stands inside tags and style sheets loads anything; text and data do not.
    live = [*re.findall(r'<style[^>]*>(.*?)</style>', page, re.DOTALL), *re.findall(r'<[a-zA-Z][^>]*>', page)]
    return [found.group() for part in live for found in _EXTERNAL.finditer(re.sub(r'data:[^"\')]*', 'data:', part))]


def commands_box(commands: Sequence[str]) -> str:
    """The commands, folded away."""
    label = 'Command' if len(commands) == 1 else f'{len(commands)} commands'
    return f'<details><summary>{label}</summary><pre>{escape(chr(10).join(commands))}</pre></details>'


def table(header: Sequence[str], rows: Sequence[Sequence[str]], kind: str = '') -> str:
    """A table; cells of ``rows`` are HTML, the first of each row names it."""
    head = ''.join(f'<th scope="col">{escape(cell)}</th>' for cell in header)
    body = ''.join(
        f'<tr><th scope="row">{row[0]}</th>{"".join(f"<td>{cell}</td>" for cell in row[1:])}</tr>' for row in rows
    )
    return (
        f'<div class="wide"><table class="{escape(kind)}"><thead><tr>{head}</tr></thead>'
        f'<tbody>{body}</tbody></table></div>'
    )


class Page:
    """Collects sections and figures, and writes them as one HTML file.

    Args:
        title: Title of the page.
        lead: First paragraph.
        warning: A notice above everything else, if any.
    """

    def __init__(self, title: str, lead: str, warning: str = '') -> None:
        self.title, self.lead, self.warning = title, lead, warning
        self._parts: list[str] = []
        self._sections: list[tuple[str, str]] = []

    def section(self, heading: str, text: str = '') -> None:
        """Begin a section; ``text`` is plain."""
        anchor = re.sub(r'[^a-z0-9]+', '-', heading.lower()).strip('-')
        self._parts.append(f'</section><section id="{anchor}">' if self._sections else f'<section id="{anchor}">')
        self._sections.append((anchor, heading))
        self._parts.append(f'<h2>{escape(heading)}</h2>' + (f'<p>{escape(text)}</p>' if text else ''))

    def figure(self, content: str, caption: str, commands: Sequence[str]) -> None:
        """Add a figure to the section.

        Args:
            content: HTML.
            caption: Says what one sees; plain text.
            commands: What made it, as typed.

        Raises:
            ValueError: If there is no caption, no command or no section yet.
        """
        if not (self._sections and caption and commands):
            raise ValueError('a figure stands in a section and has a caption and the commands that made it')
        self._parts.append(
            f'<figure>{content}<figcaption>{escape(caption)}</figcaption>{commands_box(commands)}</figure>'
        )

    def html(self) -> str:
        """The whole page."""
        style = Path(__file__).with_name('style.css').read_text()
        contents = ''.join(f'<a href="#{anchor}">{escape(heading)}</a>' for anchor, heading in self._sections)
        warning = f'<p class="warning" role="note">{escape(self.warning)}</p>' if self.warning else ''
        end = '</section>' if self._sections else ''
        return (
            f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
            f'<meta name="viewport" content="width=device-width, initial-scale=1">'
            f'<meta name="color-scheme" content="light dark"><title>{escape(self.title)}</title>'
            f'<style>{style}</style></head><body><main><header><h1>{escape(self.title)}</h1>{warning}'
            f'<p class="lead">{escape(self.lead)}</p><nav>{contents}</nav></header>'
            f'{"".join(self._parts)}{end}</main></body></html>\n'
        )

    def write(self, path: Path) -> int:
        """Write the page; returns its size in bytes. What is no Unicode, as in names of files, becomes question marks.

        Raises:
            ValueError: If it is larger than 8 MB, or would load another file.
        """
        text = self.html()
        content = text.encode(errors='replace')
        if len(content) > MAX_BYTES:
            raise ValueError(f'the page would be {len(content) / 1e6:.1f} MB, more than {MAX_BYTES / 1e6:.0f} MB')
        outside = external_references(text)
        if outside:
            raise ValueError(f'the page would load {", ".join(outside[:5])}')
        path = Path(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
        return len(content)
