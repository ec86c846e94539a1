# Copyright (c) addp_mm contributors. Apache-2.0.
"""Check paths from the command line before any work starts."""

import difflib
import os
import sys
import tempfile
from pathlib import Path

from addp_mm.errors import ConfigError


def require_file(path: str, what: str, suffixes: tuple[str, ...]) -> None:
    """Check that a file exists.

    Args:
        path: The file.
        what: Name of the option in the error.
        suffixes: Endings of the files that the error may suggest.

    Raises:
        ConfigError: The file does not exist, or is a folder. The message names similar files.
    """
    file = Path(path)
    if not path:
        raise ConfigError(f'{what}: the name of the file is empty')
    if file.is_symlink() and not file.exists():
        raise ConfigError(f'{what} {path} is a link to {os.readlink(file)}, which does not exist')
    if file.is_dir():
        raise ConfigError(f'{what} {path} is a folder, not a file{_similar_files(file / file.name, suffixes)}')
    if not file.is_file():
        raise ConfigError(f'{what} {path} does not exist{_similar_files(file, suffixes)}')


def _similar_files(path: Path, suffixes: tuple[str, ...]) -> str:
    """Suggest files with a similar name, in and below the nearest existing folder."""
    folder = next((parent for parent in path.parents if parent.is_dir()), Path('.'))
    top_level = folder in (Path('.'), Path('/'))  # too large to search below it
    files = [*folder.glob('*')] if top_level else [*folder.rglob('*')]
    if top_level and path.parent != folder:
        files += Path('configs').rglob('*')
    by_name = {file.name: file for file in reversed(files) if file.suffix in suffixes}
    similar = difflib.get_close_matches(path.name, by_name, n=3, cutoff=0.6)
    return f'; did you mean {", ".join(str(by_name[name]) for name in similar)}?' if similar else ''


def require_writable_folder(folder: str | Path, what: str) -> None:
    """Check that files can be written in a folder, which may not exist yet. No file remains.

    Args:
        folder: The folder.
        what: Name of the option in the error.

    Raises:
        ConfigError: No file can be written there.
    """
    path = Path(folder).absolute()
    try:
        path = next(parent for parent in (path, *path.parents) if parent.exists())
        # The permissions are not enough: no file can be written in /proc.
        with tempfile.TemporaryFile(dir=path):
            pass
    except OSError as error:
        raise ConfigError(f'{what}: no file can be written in {path} ({error.strerror}). Give another path') from error


def require_writable(path: str | Path, what: str) -> None:
    """Check that a file can be written at ``path``, and say so if its folder will be made.

    Args:
        path: The file.
        what: Name of the option in the error.

    Raises:
        ConfigError: The file cannot be written, or is a folder.
    """
    if Path(path).is_dir():
        raise ConfigError(f'{what} {path} is a folder. Give a file, e.g. {Path(path) / "result"}')
    folder = Path(path).parent
    require_writable_folder(folder, f'{what} {path}')
    if not folder.exists():  # it may be misspelt
        print(f'{what} {path}: the folder {folder} does not exist and will be made', file=sys.stderr)
