# Copyright (c) addp_mm contributors. Apache-2.0.
"""The work dir: its lock, its images, and the files that a restart removes."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from addp_mm.checkpoints.atomic_write import write_json
from addp_mm.errors import first_few
from addp_mm.folder_lock import LOCK, lock_folder
from addp_mm.stages.remove_folder import remove_folder
from addp_mm.stages.stage import StateError, comparable, differences, read_json

MARKER, INDEX = 'own_data.json', 'images.index'
TOKENS = 'tokens'
# a restart removes one of these and all later ones
PARTS = ('tokenizer', TOKENS, 'predictor', 'addp')
_NEW_INDEX = f'{INDEX}.new'
# keys that identify a set of images
_IDENTITY = ('images', 'fingerprint', 'channels')


class WorkDir:
    """The folder of a run. It is locked until :meth:`close`.

    The commands of the run inherit the open file :attr:`lock`, so that a training still locks the
    folder after its run was killed.

    Args:
        path: Absolute path. It is created if it is missing.

    Raises:
        FolderInUseError: Another run uses the folder.
        StateError: It contains other files.
    """

    def __init__(self, path: Path) -> None:
        self.path, self.index, self._marker = path, path / INDEX, path / MARKER
        if path.exists() and not self.is_begun:
            other = sorted(p.name for p in path.iterdir() if p.name[0] != '.' and p.name != INDEX)
            if other:
                raise StateError(
                    f'{path} contains {first_few(other)} and is not a work dir of this tool: choose another --work-dir'
                )
        self.lock = lock_folder(path)

    def close(self) -> None:
        """Unlock the folder. Remove it if nothing was written into it."""
        (self.path / _NEW_INDEX).unlink(missing_ok=True)
        self.lock.close()
        if not self.is_begun:
            (self.path / LOCK).unlink(missing_ok=True)
            with suppress(OSError):  # the list of images is kept, because listing takes time
                self.path.rmdir()

    @property
    def is_begun(self) -> bool:
        """Whether the folder belongs to a set of images."""
        return self._marker.is_file()

    @property
    def begun(self) -> dict | None:
        """The record that :meth:`claim` stored; None before.

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
        """Compare the images with those of the first start.

        Args:
            about: ``images`` (config of the dataset), ``fingerprint`` and ``channels``.

        Raises:
            StateError: The folder was started with other images, or was moved since.
        """
        if (before := self.begun) is None:
            return
        begun_at = Path(before.get('work_dir', self.path))
        if begun_at != self.path:
            raise StateError(
                f'{self.path} was moved from {begun_at}, but its configs contain the old paths. Move it back, or add '
                f'--restart-from {PARTS[0]}'
            )
        then, now = (comparable({key: of.get(key) for key in _IDENTITY}) for of in (before, about))
        other = list(differences(then, now))
        if other:
            raise StateError(
                f'{self.path} was started with other images: {first_few(other, 5, "; ")}. Choose another --work-dir or '
                f'add --restart-from {PARTS[0]}'
            )

    def claim(self, about: Mapping) -> None:
        """Store the images of the folder."""
        write_json(self._marker, dict(about, work_dir=str(self.path)))

    def restart(self, part: str, about: Mapping) -> None:
        """Remove a part and all later ones.

        Args:
            part: One of :data:`PARTS`. With 'tokenizer' the folder also gets the new list of
                images.
            about: The record for :meth:`claim`.
        """
        # The last part is removed first: after an interruption, the remaining parts belong
        # together.
        for name in reversed(PARTS[PARTS.index(part) :]):
            remove_folder(self.path / name)
        if part == PARTS[0]:
            if (self.path / _NEW_INDEX).is_file():
                (self.path / _NEW_INDEX).replace(self.index)
            self.claim(about)
