# Copyright (c) addp_mm contributors. Apache-2.0.
"""Read a checkpoint without running code from it.

A pickle is a program. torch's ``weights_only`` unpickler only accepts the classes of its list.
mmengine's checkpoints contain a few more classes (the loss history, numpy arrays), and published
ones an ``argparse.Namespace``. These are allowed by name while one file is read. A file with any
other class is refused.
"""

import argparse
import contextlib
import os
import pickle
import re
import threading
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from mmengine.config import ConfigDict
from mmengine.logging import HistoryBuffer

from addp_mm.checkpoints.archive import check_archive
from addp_mm.checkpoints.checksum import CHECKSUM, checksum
from addp_mm.checkpoints.dataset_meta import classes_from_text
from addp_mm.checkpoints.errors import CheckpointError, CheckpointNotFoundError
from addp_mm.checkpoints.hub import HUB_SCHEME, download_from_hub
from addp_mm.checkpoints.numpy_pickles import stand_ins, with_numpy

ASSETS = Path(__file__).resolve().parents[1] / 'assets'
ASSET_SCHEME = 'addp_mm://'
FILE_SCHEME = 'file://'
_HISTORY = 'mmengine.logging.history_buffer.HistoryBuffer'
_STATISTICS = ('min', 'max', 'mean', 'current')
_ZIP_HEAD = b'PK\x03\x04'
_one_at_a_time = threading.RLock()  # torch's list of allowed classes is that of the process


class _History(HistoryBuffer):
    """Replaces HistoryBuffer while a file is read, and becomes one afterwards.

    HistoryBuffer's own ``__setstate__`` writes functions from the file into a table of the class.
    All later buffers would call them.
    """

    def __setstate__(self, state: Mapping) -> None:
        arrays = {key: np.asarray(state[key], dtype=np.float64) for key in ('_log_history', '_count_history')}
        self.__dict__.update(arrays, max_length=int(state['max_length']))
        self._set_default_statistics()
        self.__class__ = HistoryBuffer  # type: ignore[assignment]  # its base class, of the same layout


def _statistic(owner: Any, name: str) -> Any:
    """Replaces ``builtins.getattr`` in a checkpoint; returns statistics of a loss history only."""
    if owner is _History and name in _STATISTICS:
        return getattr(HistoryBuffer, name)
    raise pickle.UnpicklingError(f'Unsupported global: GLOBAL builtins.getattr({owner!r}, {name!r})')


def _allowed_globals() -> list:
    return [
        (_History, _HISTORY),
        (_statistic, 'builtins.getattr'),
        argparse.Namespace,
        slice,
        ConfigDict,  # nested dicts in the metainfo of a dataset
        *stand_ins(),
    ]


@contextlib.contextmanager
def _allow() -> Iterator[None]:
    # Entries that the user allowed before must stay, but none may replace one of these names.
    before, own = torch.serialization.get_safe_globals(), _allowed_globals()
    names = {_name(entry) for entry in own}
    torch.serialization.clear_safe_globals()
    torch.serialization.add_safe_globals([*(entry for entry in before if _name(entry) not in names), *own])
    try:
        yield
    finally:
        torch.serialization.clear_safe_globals()
        torch.serialization.add_safe_globals(before)


def _name(entry: Any) -> str:
    return entry[1] if isinstance(entry, tuple) else f'{entry.__module__}.{entry.__qualname__}'


def safe_load(file: Any, map_location: Any = None, **_: Any) -> Any:
    """``torch.load`` with ``weights_only=True`` and the allow-list; the caller cannot change it.

    Args:
        file: Path or binary file object.
        map_location: As in ``torch.load``. Defaults to None.
        **_: Other arguments of ``torch.load``. They have no effect.

    Returns:
        The object stored in the file.

    Raises:
        CheckpointError: The file contains a class that is not allowed, is damaged (a checksum
            differs), or cannot be read.
    """
    name = os.fspath(file) if isinstance(file, (str, os.PathLike)) else getattr(file, 'name', 'the checkpoint')
    if _is_archive(file):
        check_archive(file, name)
    with _one_at_a_time, _allow():
        try:
            return with_numpy(torch.load(file, map_location=map_location, weights_only=True))
        except pickle.UnpicklingError as error:
            raise CheckpointError(_refusal(file, name, error)) from error
        except Exception as error:  # a damaged pickle can raise any exception
            raise CheckpointError(f'{name} cannot be read as a checkpoint: {_reason(error)}') from error


def _is_archive(file: Any) -> bool:
    """Whether torch takes a file as its zip format."""
    if isinstance(file, (str, os.PathLike)):
        try:
            with open(file, 'rb') as opened:
                return opened.read(len(_ZIP_HEAD)) == _ZIP_HEAD
        except OSError:
            return False  # torch's own error names the file
    position = file.tell()
    head = file.read(len(_ZIP_HEAD))
    file.seek(position)
    return head == _ZIP_HEAD


def _refusal(file: Any, name: str, error: Exception) -> str:
    refused = re.findall(r'GLOBAL ([\w.]+(?:\([^\n]*?\))?)', str(error))
    if not refused:
        return f'{name} is not a checkpoint, or it is damaged: {_reason(error)}. Download it or save it again.'
    if isinstance(file, (str, os.PathLike)):
        # It lists all refused classes; of damaged files and other formats it raises any error.
        with contextlib.suppress(Exception):
            refused = torch.serialization.get_unsafe_globals_in_checkpoint(file) or refused
    return (
        f'{name} is refused: besides weights it holds {", ".join(sorted(set(refused)))}, and loading that could '
        'run code. Nothing was loaded. Ask its author for the weights alone (a state dict, or safetensors). If you '
        'trust the file and the class only holds data, allow the class with torch.serialization.add_safe_globals.'
    )


def _reason(error: Exception) -> str:
    # torch's message also advises to switch the check off; that part is left out.
    text = str(error).rpartition('WeightsUnpickler error:')[2]
    return next((line.strip() for line in text.splitlines() if line.strip()), type(error).__name__)


def resolve_asset(path: str) -> str:
    """Path of a file; ``addp_mm://NAME`` is a file that the package ships.

    Raises:
        CheckpointNotFoundError: The package ships no such file. The message lists its files.
    """
    if not path.startswith(ASSET_SCHEME):
        return path
    name = path[len(ASSET_SCHEME) :]
    shipped = sorted(entry.name for entry in ASSETS.iterdir() if entry.is_file()) if ASSETS.is_dir() else []
    if name not in shipped:
        raise CheckpointNotFoundError(
            f'{path}: addp_mm ships no {name!r}. It ships {", ".join(shipped) or "no files"}.'
        )
    return str(ASSETS / name)


def load_checkpoint_file(path: str | os.PathLike, map_location: Any = 'cpu') -> dict:
    """Read a checkpoint, ``.pth`` or ``.safetensors``, without running code from it.

    Args:
        path: File. ``file://…``, ``addp_mm://NAME`` for a file that the package ships, and
            ``hf://owner/repo[@revision]/path`` for a file on the Hugging Face Hub work too.
        map_location: Device of the tensors, as in ``torch.load``. Defaults to 'cpu'.

    Returns:
        The content of the file. A safetensors file becomes ``dict(state_dict=…, meta=…)``.

    Raises:
        CheckpointNotFoundError: The file does not exist.
        CheckpointError: The file is empty, truncated, damaged, not a checkpoint, or holds more than
            data.
    """
    path = _local_path(path)
    head = _head(path)
    if _is_safetensors(path, head):
        return _load_safetensors(path, map_location)
    _check_head(path, head)
    checkpoint = safe_load(path, map_location)
    if not isinstance(checkpoint, dict):
        raise CheckpointError(
            f'{path} holds a {type(checkpoint).__name__}, not a checkpoint: expected a dict of '
            'weights, or a dict with them under state_dict, model or module.'
        )
    return checkpoint


def damage(path: str | os.PathLike) -> str | None:
    """Find out whether a local checkpoint is whole, without loading it where that is possible.

    The checksums of PyTorch's zip format are compared. Files of other formats are read.

    Returns:
        What is wrong, in the words of :func:`load_checkpoint_file`; None if nothing is.
    """
    try:
        local = _local_path(path)
        head = _head(local)
        if head.startswith(_ZIP_HEAD) and not _is_safetensors(local, head):
            _check_head(local, head)
            check_archive(local)
        else:
            load_checkpoint_file(local)
    except CheckpointError as error:
        return str(error)
    return None


def mapped(path: str | os.PathLike) -> dict:
    """A local checkpoint whose tensors are read when they are used; call :func:`damage` before.

    Returns:
        The content, or an empty dict if the file is not a checkpoint in PyTorch's zip format.
    """
    with _allow(), contextlib.suppress(Exception):  # load_checkpoint_file names the error
        content = torch.load(path, map_location='cpu', weights_only=True, mmap=True)
        return content if isinstance(content, dict) else {}
    return {}


def _local_path(path: str | os.PathLike) -> str:
    """Path of a file that exists and is not empty; that of an address is found or downloaded."""
    path = os.fspath(path)
    if path.startswith(HUB_SCHEME):
        path = download_from_hub(path)
    if path.startswith(FILE_SCHEME):
        from urllib.request import url2pathname

        path = url2pathname(path[len(FILE_SCHEME) :].removeprefix('localhost'))
    path = os.path.expanduser(resolve_asset(path))
    _check_file(path)
    return path


def _head(path: str) -> bytes:
    try:
        with open(path, 'rb') as file:
            return file.read(512)
    except OSError as error:
        raise CheckpointError(
            f'{path} cannot be read ({error.strerror}). Check its permissions and the disk.'
        ) from error


def _is_safetensors(path: str, head: bytes) -> bool:
    return path.endswith('.safetensors') or head[8:10] == b'{"'


def _check_file(path: str) -> None:
    if os.path.isdir(path):
        raise CheckpointError(f'{path} is a folder, not a checkpoint. Give one of the files in it.')
    scheme = re.match(r'[\w.+-]+://', path)
    if scheme and not os.path.isfile(path):
        raise CheckpointNotFoundError(
            f'{path}: {scheme[0]} cannot be read here. Paths, {FILE_SCHEME}, {ASSET_SCHEME} and {HUB_SCHEME} can. '
            'Configs also take http://, https://, torchvision:// and open-mmlab://. '
            'For any other address, copy the file to this machine and give its path.'
        )
    if not os.path.isfile(path):
        place = '' if os.path.isabs(path) else f' in the working directory {os.getcwd()}'
        raise CheckpointNotFoundError(f'{path} does not exist{place}. Check the path of the checkpoint.')
    if os.path.getsize(path) == 0:
        raise CheckpointError(f'{path} is empty. Download it or save it again.')


def _check_head(path: str, head: bytes) -> None:
    if head.startswith(_ZIP_HEAD):
        if not _has_end(path):
            raise CheckpointError(
                f'{path} is truncated: the end of the file is missing. Download it again, or use the checkpoint '
                'that was saved before it.'
            )
    elif head.startswith(b'version https://git-lfs'):
        raise CheckpointError(f'{path} is a Git LFS pointer, not the weights. Run git lfs pull.')
    elif head.lstrip()[:1] == b'<':
        raise CheckpointError(f'{path} is a web page, not a checkpoint. Check the address and download it again.')
    elif not head.startswith(b'\x80'):
        raise CheckpointError(
            f'{path} is not a checkpoint: it starts neither like a PyTorch file nor like a safetensors file. '
            'Check the path.'
        )


def _has_end(path: str) -> bool:
    try:
        return zipfile.is_zipfile(path)
    except zipfile.BadZipFile:
        return True  # it is damaged, as check_archive will say


def _load_safetensors(path: str, map_location: Any) -> dict:
    from safetensors import SafetensorError, safe_open

    device = str(map_location) if isinstance(map_location, (str, torch.device)) else 'cpu'
    try:
        with safe_open(path, framework='pt') as file:
            tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118  (it is not a dict)
            metadata = dict(file.metadata() or {})
    except SafetensorError as error:
        raise CheckpointError(f'{path} is truncated or not a safetensors file ({error}). Download it again.') from error
    expected = metadata.pop(CHECKSUM, None)
    if expected is not None and expected != checksum(tensors, metadata):
        raise CheckpointError(
            f'{path} is damaged: the checksum of its content differs from the one stored in it. Copy or download the '
            'file again, or write it again with the same command.'
        )
    return dict(
        state_dict={name: tensor.to(device) for name, tensor in tensors.items()}, meta=classes_from_text(metadata)
    )
