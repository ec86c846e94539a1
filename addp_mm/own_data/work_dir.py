# Copyright (c) addp_mm contributors. Apache-2.0.
"""The work dir as a whole: whose it is, who is at work in it, and which images it was begun with."""

from __future__ import annotations

import fcntl
import json
import os
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path

from addp_mm.errors import first_few
from addp_mm.own_data.state import StateError, differences, moved, read_json, write_atomically

MARKER, INDEX, LOCK = 'own_data.json', 'images.index', '.lock'
TOKENS = 'tokens'
# in this order, what is begun anew together with a stage
PARTS = ('tokenizer', TOKENS, 'predictor', 'addp')
_NEW_INDEX = f'{INDEX}.new'
# in the marker, what the images are known by; the rest was found by looking at some
_IDENTITY = ('images', 'fingerprint', 'channels')


class Lock:
    """A work dir held until this process and all that it starts have ended.

    Args:
        path: The file that is locked.

    Raises:
        StateError: Another one holds it, be it a training that outlived its tool.
    """

    def __init__(self, path: Path) -> None:
        self._file = open(path, 'a+')  # noqa: SIM115  # open as long as the process lives
        os.set_inheritable(self._file.fileno(), True)
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            # a start that was refused has removed the file meanwhile
            mine = path.exists() and os.path.samestat(os.stat(path), os.fstat(self._file.fileno()))
        except OSError:
            mine = False
        if not mine:
            self._file.seek(0)
            began, *rest = self._file.read().split() or ['?']
            self._file.close()
            alive = [pid for pid in (began, *rest) if pid.isdigit() and _is_alive(int(pid))]
            raise StateError(
                f'{path.parent} is in use by a run that process {began} began. Of it and the one '
                f'it started, these live on this machine: {first_few(alive)}. Wait, or end them'
            )
        self.note()

    def fileno(self) -> int:
        return self._file.fileno()

    def note(self, child: int | None = None) -> None:
        """Write down who is at work: this process and the one that it waits for."""
        self._file.truncate(0)
        self._file.write(f'{os.getpid()} {child or ""}\n')
        self._file.flush()

    def close(self) -> None:
        self._file.close()


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


class WorkDir:
    """The folder of a run. What a start made in a folder that never became this tool's goes with :meth:`close`.

    Args:
        path: Absolute; made where it is lacking.

    Raises:
        StateError: It holds something else, which is left as it is, or another run is at work in
            it.
    """

    def __init__(self, path: Path) -> None:
        self.path, self.index, self._marker = path, path / INDEX, path / MARKER
        if path.exists() and not self._marker.is_file():
            # a list of images whose writing was ended is no one's work
            strange = sorted(
                other.name
                for other in path.iterdir()
                if other.name not in (LOCK, INDEX) and not other.name.startswith(f'.{INDEX}')
            )
            if strange:
                raise StateError(
                    f'{path} holds {first_few(strange)} and is no work dir of this tool: choose another --work-dir'
                )
        self._made = [own for own in (path / LOCK, self.index, path) if not own.exists()]
        path.mkdir(parents=True, exist_ok=True)
        self.lock = Lock(path / LOCK)

    @property
    def is_begun(self) -> bool:
        """Whether there is a marker."""
        return self._marker.is_file()

    @property
    def begun(self) -> dict | None:
        """What the marker says about the images; None where there is none yet.

        Raises:
            StateError: It is damaged.
        """
        if not self.is_begun:
            return None
        return read_json(self._marker, f'Choose another --work-dir, or begin anew with --restart-from {PARTS[0]}')

    @property
    def begun_at(self) -> Path:
        """Where the folder was when it was begun. It may have been moved since; what it is known by keeps its paths."""
        images = (self.begun or {}).get('images')
        index = images.get('index_file') if isinstance(images, dict) else None
        return Path(index).parent if index else self.path

    def close(self) -> None:
        (self.path / _NEW_INDEX).unlink(missing_ok=True)
        if not self.is_begun:
            for own in self._made:
                if own.is_file():
                    own.unlink()
                elif own.is_dir() and not any(own.iterdir()):
                    own.rmdir()
        self.lock.close()

    def keep_list(self) -> None:
        """Leave the list of images to the next start, whatever becomes of this one: listing many takes long."""
        self._made = [own for own in self._made if own != self.index]

    def new_index(self) -> Path:
        """Where images are listed that only later take the place of those of :attr:`index`."""
        path = self.path / _NEW_INDEX
        path.unlink(missing_ok=True)
        return path

    def check_images(self, about: Mapping) -> None:
        """Find that the folder was begun with these images, if it was begun.

        Args:
            about: ``images`` (config of the data set), ``fingerprint`` and ``channels``.

        Raises:
            StateError: It was begun with others.
        """
        before = self.begun
        if before is not None:
            other = list(differences(_identity(before), moved(_identity(about), self.path, self.begun_at)))
            if other:
                raise StateError(
                    f'{self.path} was begun with other images: {first_few(other, 5, "; ")}. Choose '
                    'another --work-dir, or begin anew with --restart-from tokenizer'
                )

    def claim(self, about: Mapping) -> None:
        """Make the folder this tool's, with these images."""
        write_atomically(self._marker, json.dumps(dict(about), indent=2))

    def size_from(self, part: str) -> int:
        """Bytes of what :meth:`begin_anew` removes."""
        return sum(file.lstat().st_size for folder in self._from(part) for file in folder.rglob('*') if file.is_file())

    def begin_anew(self, part: str, about: Mapping) -> None:
        """Remove one of :data:`PARTS` and the later ones.

        Args:
            part: The first of them. With 'tokenizer' the folder also gets the new list of images.
            about: See :meth:`claim`.
        """
        # the last first, each whole: wherever this is ended, what is left fits together
        for folder in reversed(list(self._from(part))):
            removed = folder.with_name(f'.{folder.name}.removed')
            shutil.rmtree(removed, ignore_errors=True)
            if folder.exists():
                os.replace(folder, removed)
                shutil.rmtree(removed, ignore_errors=True)
        if part == PARTS[0]:
            for unfinished in self.path.glob(f'.{INDEX}*'):
                shutil.rmtree(unfinished, ignore_errors=True)
            if (self.path / _NEW_INDEX).is_file():
                os.replace(self.path / _NEW_INDEX, self.index)
            self.claim(about)

    def _from(self, part: str) -> Iterator[Path]:
        return (self.path / name for name in PARTS[PARTS.index(part) :])


def _identity(about: Mapping) -> dict:
    known = json.loads(json.dumps({key: about.get(key) for key in _IDENTITY}))
    if isinstance(known['images'], dict):
        known['images'].pop('max_broken_share', None)
    return known
