# Copyright (c) addp_mm contributors. Apache-2.0.
"""Keep other web pages away from the page, and the page from loading anything from elsewhere."""

from __future__ import annotations

import ipaddress
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any
from urllib.parse import urlsplit

Message = MutableMapping[str, Any]

# Gradio's page has scripts and styles inside its HTML, and makes images and workers as blobs.
POLICY = (
    "default-src 'self' 'unsafe-inline' 'unsafe-eval' data: blob:; object-src 'none'; base-uri 'self'; "
    "form-action 'self'; frame-ancestors 'self'"
)


def is_loopback(host: str) -> bool:
    """Whether an address can be reached from this computer only."""
    try:
        return ipaddress.ip_address(host.strip('[]')).is_loopback
    except ValueError:
        return host == 'localhost'


class OwnOrigin:
    """ASGI middleware that answers requests of the page itself only.

    A browser sends the requests of any web page that its user visits, also to this computer. It
    states the page in the header ``Origin``. A page can also point its own name at this computer;
    then the header ``Host`` has that name. Answers have the header ``Content-Security-Policy``.

    Args:
        app: The application behind it.
        listens_at: Address that the page listens at. At a loopback address, ``Host`` must be one.
        max_bytes: Largest body of a request.
    """

    def __init__(self, app: Callable[..., Awaitable[None]], listens_at: str, max_bytes: int) -> None:
        self.app = app
        self.is_local = is_loopback(listens_at)
        self.max_bytes = max_bytes

    async def __call__(self, scope: Message, receive: Callable, send: Callable) -> None:
        """Answer a request, or refuse it."""

        async def send_with_policy(message: Message) -> None:
            if message['type'] == 'http.response.start':
                message['headers'] = [*message.get('headers', ()), (b'content-security-policy', POLICY.encode())]
            await send(message)

        refused = self._refused(scope) if scope['type'] in ('http', 'websocket') else None
        if refused is None:
            await self.app(scope, receive, send_with_policy)
        elif scope['type'] == 'websocket':
            await send(dict(type='websocket.close', code=1008))
        else:
            status, text = refused
            headers = [(b'content-type', b'text/plain'), (b'connection', b'close')]
            await send_with_policy(dict(type='http.response.start', status=status, headers=headers))
            await send(dict(type='http.response.body', body=text.encode()))

    def _refused(self, scope: Message) -> tuple[int, str] | None:
        """Status and reason if a request is refused."""
        headers = {name.lower().decode('latin1'): value.decode('latin1') for name, value in scope['headers']}
        host = headers.get('host', '')
        if self.is_local and not is_loopback(_name_of(f'//{host}')):
            return 403, 'This page is for this computer only: open it as localhost.'
        # a proxy in front of the page states the host that the browser asked for
        own = {host, headers.get('x-forwarded-host', host)}
        origin = headers.get('origin')
        if origin is not None and origin.partition('://')[2] not in own:
            return 403, 'Requests of other web pages are refused.'
        if 'transfer-encoding' in headers:
            return 411, 'The length of the request is missing.'
        length = headers.get('content-length', '0')
        if not length.isdecimal() or int(length) > self.max_bytes:
            return 413, f'The request has more than {self.max_bytes} bytes.'
        return None


def _name_of(address: str) -> str:
    try:
        return urlsplit(address).hostname or ''
    except ValueError:
        return ''
