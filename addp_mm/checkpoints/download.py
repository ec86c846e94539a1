# Copyright (c) addp_mm contributors. Apache-2.0.
"""Download files, and keep a file only if it is complete."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator

from addp_mm.checkpoints.atomic_write import atomic_path
from addp_mm.checkpoints.errors import CheckpointError, CheckpointNotFoundError

_CHUNK = 1 << 20


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
    from urllib.request import Request, urlopen

    from tqdm import tqdm

    with urlopen(Request(url, headers={'User-Agent': 'addp_mm'}), timeout=60) as answer:
        length = answer.headers.get('Content-Length')
        announced = int(length) if length and length.isdecimal() else None
        arrived = 0
        with tqdm(total=announced, disable=not progress, unit='B', unit_scale=True, file=sys.stderr) as bar:
            while chunk := answer.read(_CHUNK):
                arrived += len(chunk)
                bar.update(len(chunk))
                yield chunk
    if announced is not None and arrived != announced:
        raise ConnectionError(f'the connection broke after {arrived} of {announced} bytes')
