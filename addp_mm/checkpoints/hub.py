# Copyright (c) addp_mm contributors. Apache-2.0.
"""Files of repositories on the Hugging Face Hub: ``hf://owner/repo@revision/path/in/repo``.

``huggingface_hub`` downloads them. It only keeps complete files, shares its cache with your other
programs, and finds cached files without a network.
"""

from __future__ import annotations

import os
import re
from typing import NamedTuple
from urllib.parse import unquote

from addp_mm.checkpoints.errors import CheckpointError, CheckpointNotFoundError

HUB_SCHEME = 'hf://'
_FORM = 'hf://owner/repo/path/in/repo or hf://owner/repo@revision/path/in/repo'
_NAME = r'[A-Za-z0-9](?:[\w.-]*\w)?'
# The path has no empty part, no '.' and no '..'.
_PATH = r'(?:(?!\.{0,2}(?:/|$))[^/]+/)*(?!\.{1,2}$)[^/]+'
_ADDRESS = rf'{HUB_SCHEME}((?!datasets/|spaces/|models/){_NAME}/{_NAME})(?:@([^/@]+))?/({_PATH})'


class HubFile(NamedTuple):
    """A file of a model repository on the Hub.

    Attributes:
        repo: 'owner/name'.
        revision: Branch, tag or commit; None for the default branch. Only a commit always names the
            same content.
        path: Path inside the repository.
    """

    repo: str
    revision: str | None
    path: str


def parse_address(address: str) -> HubFile:
    """Read ``hf://owner/repo[@revision]/path``. A slash in a revision is written ``%2F``.

    Raises:
        CheckpointError: The address does not have this form.
    """
    match = re.fullmatch(_ADDRESS, address)
    if not match:
        raise CheckpointError(
            f'{address} is not the address of a file in a model repository on the Hub. Write {_FORM}. '
            'A slash in the revision is written %2F.'
        )
    repo, revision, path = match.groups()
    if revision and '..' in unquote(revision):  # the cache has a file of this name
        raise CheckpointError(f'{address}: a revision cannot have ".." in its name. Write {_FORM}.')
    return HubFile(repo, unquote(revision) if revision else None, path)


def download_from_hub(address: str) -> str:
    """Find a file of the Hub in the local cache, or download it into the cache.

    The cached file is used if the Hub cannot be reached or ``HF_HUB_OFFLINE=1`` is set. If the
    revision is a commit, there is no request to the Hub.

    Args:
        address: ``hf://owner/repo[@revision]/path``.

    Returns:
        Path in the cache (``HF_HUB_CACHE``, by default ``~/.cache/huggingface/hub``).

    Raises:
        CheckpointNotFoundError: The repository, revision or file does not exist, or the file is
            not in the cache and the Hub cannot be reached.
        CheckpointError: The address is malformed, access is refused, or the download failed.
    """
    file = parse_address(address)
    try:
        from huggingface_hub import hf_hub_download
    except ImportError as error:
        raise CheckpointError(f'{address} needs the package huggingface_hub: pip install huggingface_hub') from error
    try:
        path = hf_hub_download(file.repo, file.path, revision=file.revision)
    except Exception as error:  # the class for a broken connection depends on the HTTP library
        raise _in_words(address, file, error) from error
    return os.fspath(path)


def _in_words(address: str, file: HubFile, error: Exception) -> CheckpointError:
    from huggingface_hub import errors

    page = f'https://huggingface.co/{file.repo}'
    if isinstance(error, errors.LocalEntryNotFoundError):
        return CheckpointNotFoundError(_not_cached(address, file))
    if isinstance(error, errors.GatedRepoError):
        return CheckpointError(
            f'{address}: {file.repo} is gated. Ask for access at {page}, then log in: hf auth login (or set HF_TOKEN).'
        )
    if isinstance(error, errors.RepositoryNotFoundError):
        return CheckpointNotFoundError(
            f'{address}: the Hub has no repository {file.repo}, or it is private. Check the name at {page}. '
            'If it is private, log in: hf auth login (or set HF_TOKEN).'
        )
    if isinstance(error, errors.RevisionNotFoundError):
        return CheckpointNotFoundError(
            f'{address}: {file.repo} has no branch, tag or commit {file.revision}. Check {page}/commits.'
        )
    if isinstance(error, errors.EntryNotFoundError):
        revision = file.revision or 'main'
        return CheckpointNotFoundError(
            f'{address}: {file.repo} has no file {file.path} at revision {revision}. Check {page}/tree/{revision}.'
        )
    reason = next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)
    return CheckpointError(
        f'{address} could not be downloaded ({type(error).__name__}: {reason}). An incomplete file is never used. '
        'Run the command again to continue the download, or give the path of a file.'
    )


def _not_cached(address: str, file: HubFile) -> str:
    from huggingface_hub import constants

    why = 'HF_HUB_OFFLINE is set' if constants.HF_HUB_OFFLINE else 'the Hub cannot be reached'
    revision = f' --revision {file.revision}' if file.revision else ''
    return (
        f'{address}: {why}, and the file is not in the cache {constants.HF_HUB_CACHE}. On a machine with a network '
        f'run: hf download {file.repo} {file.path}{revision}. Then copy its folder '
        f'models--{file.repo.replace("/", "--")} from the cache there to the cache here, or give the path of the file.'
    )
