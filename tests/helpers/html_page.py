# Copyright (c) addp_mm contributors. Apache-2.0.
"""Text, elements and external addresses of an HTML page."""

from __future__ import annotations

import re
from html.parser import HTMLParser


class ParsedPage(HTMLParser):
    """Text, tags and addresses of a page.

    Args:
        html: The page.
    """

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict]] = []
        self.text, self.style = '', ''
        self._inside = ''
        self.feed(html)
        self.close()

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        self._inside = tag

    def handle_data(self, data):
        if self._inside == 'style':
            self.style += data
        else:
            self.text += data

    def handle_endtag(self, tag):
        self._inside = ''

    def attributes(self, tag: str) -> list[dict]:
        """Attributes of each element of a kind."""
        return [attributes for name, attributes in self.tags if name == tag]

    def external(self) -> list[str]:
        """Addresses from which a browser would load something."""
        loading = ('src', 'href', 'srcset', 'data', 'action', 'poster')
        addresses = [value for _, attributes in self.tags for key, value in attributes.items() if key in loading]
        addresses += re.findall(r'url\(\s*["\']?([^"\')]+)|@import\s+["\']([^"\']+)', self.style)
        return [str(address) for address in addresses if not str(address).startswith(('data:', '#'))]
