# Copyright (c) addp_mm contributors. Apache-2.0.
"""Find tags of an HTML page that are not closed, or closed in the wrong order."""

from html.parser import HTMLParser

_WITHOUT_END = {'meta', 'img', 'br', 'link', 'input', 'hr'}


class _Tags(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.wrong: list[str] = []

    def handle_starttag(self, tag, attrs):
        if tag not in _WITHOUT_END:
            self.open.append(tag)

    def handle_endtag(self, tag):
        if not self.open or self.open.pop() != tag:
            self.wrong.append(f'</{tag}> in line {self.getpos()[0]}')


def unbalanced(html: str) -> list[str]:
    """Tags of a page that do not match; [] if it is well-formed."""
    tags = _Tags()
    tags.feed(html)
    tags.close()
    return [*tags.wrong, *(f'<{tag}> is not closed' for tag in tags.open)]
