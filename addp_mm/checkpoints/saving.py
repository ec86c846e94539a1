# Copyright (c) addp_mm contributors. Apache-2.0.
"""Write checkpoints atomically, and verify them before they get their name.

mmengine writes a checkpoint straight to its final name: a killed process or a full disk leaves a
truncated file there. All checkpoints of a local folder are written here instead.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from functools import partial
from typing import Any

from addp_mm.checkpoints.archive import check_archive
from addp_mm.checkpoints.atomic_write import atomic_path
from addp_mm.errors import RESUME, SAME_COMMAND

Writer = Callable[[Any, str], None]

_one_at_a_time = threading.Lock()
_writer: ContextVar[Writer | None] = ContextVar('writer of checkpoints', default=None)
_mmengine: dict[str, Callable] = {}


def write_checkpoint(content: Any, path: str | os.PathLike, remedy: str = SAME_COMMAND) -> None:
    """Write an object as ``torch.save`` does: the file is complete, or it does not exist.

    It is written under a temporary name, its checksums are read back, and it is synced to disk
    before it gets its name. A process writes one checkpoint at a time.

    Args:
        content: The object.
        path: The file. Its folder is created if it is missing.
        remedy: What to do if the disk is full, after room was made. Defaults to the same command.

    Raises:
        FileWriteError: The file cannot be written, for example because the disk is full.
        CheckpointError: What was read back differs from what was written.
    """
    import torch

    with _one_at_a_time, atomic_path(path, remedy) as unnamed:
        try:
            with open(unnamed, 'wb') as file:  # of a path torch would store the temporary name
                torch.save(content, file)
        except RuntimeError as error:
            raise _system_error(error) or error from None
        check_archive(
            unnamed,
            f'what was just written for {os.fspath(path)}',
            'All complete files stay: check the disk (dmesg shows its errors) and the memory of this machine, and '
            + remedy,
        )


@contextmanager
def writing_by(writer: Writer) -> Iterator[None]:
    """A context in which ``writer(content, path)`` replaces :func:`write_checkpoint` for mmengine.

    Args:
        writer: Writes the checkpoints of local folders that this thread saves.
    """
    token = _writer.set(writer)
    try:
        yield
    finally:
        _writer.reset(token)


def save_checkpoint(
    checkpoint: dict, filename: str, file_client_args: dict | None = None, backend_args: dict | None = None
) -> None:
    """Save a checkpoint: mmengine's function, which writes local files atomically.

    Args:
        checkpoint: Content.
        filename: Path, or an address that mmengine can write (``s3://…``, ``pavi://…``).
        file_client_args: As in mmengine. Defaults to None.
        backend_args: As in mmengine. Defaults to None.
    """
    if _is_local(filename, file_client_args, backend_args):
        (_writer.get() or partial(write_checkpoint, remedy=RESUME))(checkpoint, filename)
    else:
        _mmengine['save_checkpoint'](checkpoint, filename, file_client_args, backend_args)


def use_atomic_saving(module: Any) -> None:
    """Replace mmengine's ``save_checkpoint`` in a module that defines or imported it.

    Args:
        module: ``mmengine.runner.checkpoint``, or a module that uses the function by its name.
    """
    if module.save_checkpoint is not save_checkpoint:
        _mmengine['save_checkpoint'] = module.save_checkpoint
        module.save_checkpoint = save_checkpoint


def _system_error(error: BaseException) -> OSError | None:
    """The error of the system that torch's archive writer hides behind its own."""
    inner = error.__context__
    return inner if inner is None or isinstance(inner, OSError) else _system_error(inner)


def _is_local(filename: str, file_client_args: dict | None, backend_args: dict | None) -> bool:
    from mmengine.fileio import LocalBackend, get_file_backend

    if file_client_args is not None:  # the older way to choose a backend
        return backend_args is None and file_client_args.get('backend') == 'disk'
    return not filename.startswith('pavi://') and isinstance(
        get_file_backend(filename, backend_args=backend_args), LocalBackend
    )
