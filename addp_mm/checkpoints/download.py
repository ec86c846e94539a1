# Copyright (c) addp_mm contributors. Apache-2.0.
"""Download files, and keep a file only if it is complete."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING

from addp_mm.checkpoints.atomic_write import atomic_path
from addp_mm.checkpoints.errors import CheckpointError, CheckpointNotFoundError

if TYPE_CHECKING:
    from urllib.request import OpenerDirector

#: The largest file that is downloaded.
MOST_BYTES = 100 << 30
_CHUNK = 1 << 20
_SILENCE = 60  # seconds without data after which a download ends


def download(url: str, path: str | os.PathLike, progress: bool = True) -> None:
    """Download a file.

    ``torch.hub.download_url_to_file`` does not compare the number of bytes with the number that the
    server announced. It therefore keeps an incomplete file when the connection breaks.

    Args:
        url: Address; http or https.
        path: File to write. It appears only when the download is complete.
        progress: Whether to show a progress bar on standard error. Defaults to True.

    Raises:
        CheckpointNotFoundError: The server has no such file.
        CheckpointError: The server does not answer or refuses, or the connection breaks.
    """
    from http.client import HTTPException
    from urllib.error import HTTPError

    try:
        with atomic_path(path) as partial, open(partial, 'wb') as file:
            for chunk in _chunks(url, progress):
                file.write(chunk)
    except HTTPError as error:
        kind = CheckpointNotFoundError if error.code in (404, 410) else CheckpointError
        raise kind(f'{url}: the server answers {error.code} {error.reason}. Check the address.') from error
    except (OSError, HTTPException) as error:
        raise CheckpointError(
            f'{url} could not be downloaded to {path}: {getattr(error, "reason", error)}. No part of the file was '
            'kept. Try again, or download the file in another way and give its path.'
        ) from error


def _chunks(url: str, progress: bool) -> Iterator[bytes]:
    from urllib.request import Request

    from tqdm import tqdm

    request = Request(url, headers={'User-Agent': 'addp_mm'})  # noqa: S310  (the opener only has http and https)
    with _opener().open(request, timeout=_SILENCE) as answer:
        length = answer.headers.get('Content-Length')
        announced = int(length) if length and length.isdecimal() else None
        if announced is not None and announced > MOST_BYTES:
            raise ConnectionError(f'it has {announced / 2**30:.0f} GiB, more than {MOST_BYTES >> 30} GiB')
        arrived = 0
        with tqdm(total=announced, disable=not progress, unit='B', unit_scale=True, file=sys.stderr) as bar:
            while chunk := answer.read(_CHUNK):
                arrived += len(chunk)
                bar.update(len(chunk))
                if arrived > MOST_BYTES:
                    raise ConnectionError(f'it has more than {MOST_BYTES >> 30} GiB')
                yield chunk
    if announced is not None and arrived != announced:
        raise ConnectionError(f'the connection broke after {arrived} of {announced} bytes')


def _opener() -> OpenerDirector:
    """Opens http and https. A redirect can lead to neither a file of this computer nor to ftp."""
    from urllib import request

    class SameOrSafer(request.HTTPRedirectHandler):
        """Follows redirects to https, and those from http to http."""

        def redirect_request(self, req, fp, code, msg, headers, newurl):
            allowed = ('https', 'http') if req.type == 'http' else ('https',)
            if newurl.partition(':')[0].lower() not in allowed:
                raise ConnectionError(f'the server redirects to {newurl}, which is not {" or ".join(allowed)}')
            return super().redirect_request(req, fp, code, msg, headers, newurl)

    opener = request.OpenerDirector()
    kinds = (
        request.ProxyHandler,
        request.HTTPHandler,
        request.HTTPSHandler,
        SameOrSafer,
        request.HTTPDefaultErrorHandler,
        request.HTTPErrorProcessor,
        request.UnknownHandler,
    )
    for kind in kinds:
        opener.add_handler(kind())
    return opener
