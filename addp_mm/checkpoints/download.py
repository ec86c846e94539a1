# Copyright (c) addp_mm contributors. Apache-2.0.
"""Files from the network that are whole, or not there."""

import contextlib
import hashlib
import os
import sys
import uuid
from collections.abc import Iterator
from typing import Any

_CHUNK = 1 << 20


def download(url: str, path: str, sha256_start: str | None = None, progress: bool = True) -> None:
    """Download a file to ``path``, which exists only once all of it has arrived.

    ``torch.hub.download_url_to_file`` does not compare what came with what was announced, so that a connection that
    breaks leaves half a file in its cache, which every later run would take.

    Args:
        url: Address; http or https.
        path: Where the file goes; its folder exists.
        sha256_start: Hexadecimal digits that the SHA-256 of the content has to start with.
        progress: Whether to show a bar on standard error.

    Raises:
        CheckpointError: The server does not answer or refuses, the connection breaks, or the digest
            differs.
    """
    from http.client import HTTPException
    from urllib.error import HTTPError

    from addp_mm.checkpoints.errors import CheckpointError, CheckpointNotFoundError

    digest = hashlib.sha256()
    try:
        with _moved_when_done(path) as file:
            for chunk in _chunks(url, progress):
                digest.update(chunk)
                file.write(chunk)
            if not digest.hexdigest().startswith(sha256_start or ''):
                raise CheckpointError(
                    f'{url}: its SHA-256 starts with {digest.hexdigest()[:8]}, not with '
                    f'{sha256_start} as its name says. Nothing was kept; download it again.'
                )
    except HTTPError as error:
        kind = CheckpointNotFoundError if error.code in (404, 410) else CheckpointError
        raise kind(f'{url}: the server answers {error.code} {error.reason}. Check the address.') from error
    except (OSError, HTTPException) as error:
        if isinstance(error, CheckpointError):
            raise
        raise CheckpointError(
            f'{url} could not be downloaded to {path}: {getattr(error, "reason", error)}. Nothing '
            'unfinished was kept. Try again, or download it elsewhere and give the path of the '
            'file.'
        ) from error


def _chunks(url: str, progress: bool) -> Iterator[bytes]:
    from urllib.request import Request, urlopen

    from tqdm import tqdm

    with urlopen(Request(url, headers={'User-Agent': 'addp_mm'}), timeout=60) as answer:
        announced = answer.headers.get('Content-Length')
        announced = int(announced) if announced and announced.isdigit() else None
        arrived = 0
        with tqdm(total=announced, disable=not progress, unit='B', unit_scale=True, file=sys.stderr) as bar:
            while chunk := answer.read(_CHUNK):
                arrived += len(chunk)
                bar.update(len(chunk))
                yield chunk
    if announced is not None and arrived != announced:
        raise ConnectionError(f'the connection broke after {arrived} of {announced} bytes')


@contextlib.contextmanager
def _moved_when_done(path: str) -> Iterator[Any]:
    # A name of its own for each process: several may download the same file.
    unfinished = f'{path}.{uuid.uuid4().hex}.partial'
    try:
        with open(unfinished, 'xb') as file:
            yield file
        os.replace(unfinished, path)
    finally:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(unfinished)
