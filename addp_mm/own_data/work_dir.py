# Copyright (c) addp_mm contributors. Apache-2.0.
"""The work dir as a whole: its lock, the images it belongs to, and what a restart removes."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from filelock import FileLock, Timeout

from addp_mm.checkpoints.atomic_write import write_json, write_text
from addp_mm.errors import first_few
from addp_mm.own_data.state import StateError, differences, read_json

MARKER, INDEX, LOCK, PROCESSES = 'own_data.json', 'images.index', '.lock', '.processes'
TOKENS = 'tokens'
# A restart removes one of these and all after it.
PARTS = ('tokenizer', TOKENS, 'predictor', 'addp')
_NEW_INDEX = f'{INDEX}.new'


class WorkDir:
    """The folder of a run. It is locked until :meth:`close`.

    Args:
        path: Absolute path. It is created if it is missing.

    Raises:
        StateError: Another run uses the folder, it holds something else, or it was moved.
    """

    def __init__(self, path: Path) -> None:
        self.path, self.index, self._marker = path, path / INDEX, path / MARKER
        if path.exists() and not self.is_begun:
            other = sorted(p.name for p in path.iterdir() if p.name[0] != '.' and p.name != INDEX)
            if other:
                raise StateError(
                    f'{path} holds {first_few(other)} and is no work dir of this tool: choose another --work-dir'
                )
        path.mkdir(parents=True, exist_ok=True)
        self._lock = FileLock(path / LOCK)
        self._take_lock()

    def _take_lock(self) -> None:
        """Refuse a folder that a run, or a process of a killed run, still uses."""
        processes = self.path / PROCESSES
        noted = processes.read_text().split() if processes.is_file() else []
        try:
            self._lock.acquire(timeout=0)
        except Timeout as error:
            raise StateError(
                f'{self.path} is in use by process {noted[0] if noted else "?"}. Wait for it, or end it'
            ) from error
        if noted[1:] and _is_alive(int(noted[1])):
            self._lock.release()
            raise StateError(
                f'{self.path} is in use by process {noted[1]}, which a run that was killed has started. Wait for it, '
                f'or end it. If process {noted[1]} is something else, remove {processes}'
            )
        self.note_pid(None)

    def note_pid(self, pid: int | None) -> None:
        """Store the ids of this process and of the command that it runs, for a later start."""
        write_text(self.path / PROCESSES, f'{os.getpid()} {pid or ""}\n')

    def close(self) -> None:
        """Unlock the folder. Remove it if nothing was written into it."""
        for name in (_NEW_INDEX, PROCESSES):
            (self.path / name).unlink(missing_ok=True)
        self._lock.release()
        if not self.is_begun:
            (self.path / LOCK).unlink(missing_ok=True)
            with suppress(OSError):  # the list of images is kept: it took time
                self.path.rmdir()

    @property
    def is_begun(self) -> bool:
        """Whether the folder belongs to a set of images."""
        return self._marker.is_file()

    @property
    def begun(self) -> dict | None:
        """What :meth:`claim` stored; None before that.

        Raises:
            StateError: The file is damaged.
        """
        if not self.is_begun:
            return None
        return read_json(self._marker, f'Choose another --work-dir, or add --restart-from {PARTS[0]}')

    def new_index(self) -> Path:
        """File for a new list of images. :meth:`restart` replaces the old list by it."""
        path = self.path / _NEW_INDEX
        path.unlink(missing_ok=True)
        return path

    def check_images(self, about: Mapping) -> None:
        """Compare the images with those that the folder was begun with.

        Args:
            about: ``images`` (config of the dataset), ``fingerprint`` and ``channels``.

        Raises:
            StateError: The folder was begun with other images, or was moved since.
        """
        if (before := self.begun) is None:
            return
        begun_at = Path(before.get('work_dir', self.path))
        if begun_at != self.path:
            raise StateError(
                f'{self.path} was moved from {begun_at}, and the configs in it name files there. Move it back, or add '
                f'--restart-from {PARTS[0]}'
            )
        other = list(differences(_identity(before), _identity(about)))
        if other:
            raise StateError(
                f'{self.path} was begun with other images: {first_few(other, 5, "; ")}. Choose another --work-dir, or '
                f'add --restart-from {PARTS[0]}'
            )

    def claim(self, about: Mapping) -> None:
        """Store what images the folder belongs to."""
        write_json(self._marker, dict(about, work_dir=str(self.path)))

    def size_from(self, part: str) -> int:
        """Bytes of what :meth:`restart` removes."""
        files = (file for folder in self._from(part) for file in folder.rglob('*') if file.is_file())
        return sum(file.lstat().st_size for file in files)

    def restart(self, part: str, about: Mapping) -> None:
        """Remove a part and all later ones.

        Args:
            part: One of :data:`PARTS`. With 'tokenizer' the folder also gets the new list of
                images.
            about: What :meth:`claim` stores.
        """
        # The last part goes first: if this is interrupted, the parts that are left belong together.
        for folder in reversed(self._from(part)):
            removed = folder.with_name(f'.{folder.name}.removed')
            shutil.rmtree(removed, ignore_errors=True)
            if folder.exists():
                folder.rename(removed)
                shutil.rmtree(removed, ignore_errors=True)
        if part == PARTS[0]:
            if (self.path / _NEW_INDEX).is_file():
                (self.path / _NEW_INDEX).replace(self.index)
            self.claim(about)

    def _from(self, part: str) -> list[Path]:
        return [self.path / name for name in PARTS[PARTS.index(part) :]]


def _identity(about: Mapping) -> dict:
    """The part of ``about`` that identifies a set of images."""
    known = json.loads(json.dumps({key: about.get(key) for key in ('images', 'fingerprint', 'channels')}))
    if isinstance(known['images'], dict):
        known['images'].pop('max_broken_share', None)
    return known


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
