# Copyright (c) addp_mm contributors. Apache-2.0.
"""Read a config file; every mistake in it becomes an error of one line that names file and line."""

import codecs
import errno
import importlib
import inspect
import os
import sys
import traceback
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from mmengine.config import Config
from mmengine.config.utils import ConfigParsingError
from mmengine.utils import import_modules_from_strings

from addp_mm.config.data_config import DATA_SUFFIXES, read_data_config
from addp_mm.config.paths import require_file
from addp_mm.errors import ConfigError, UserError, first_few

_DELETE = '_delete_'
CONFIG_SUFFIXES = ('.py', *DATA_SUFFIXES)
# functions of mmengine's Config that read the file in their argument; the first two call themselves
_INHERITING = ('_file2dict', '_parse_lazy_import')
_READERS = (*_INHERITING, '_is_lazy_import')
_LONGEST = 300  # characters of another package's message


def read_config(path: str) -> Config:
    """Read a config with the files that it inherits from.

    A config in Python is run. One in JSON or YAML is data, see
    :func:`~addp_mm.config.data_config.read_data_config`.

    A link is read as if it were the file itself if the files in ``_base_`` are not beside the link.

    Args:
        path: The file. It exists.

    Raises:
        ConfigError: The file, or one that it inherits from, has a mistake.
    """
    try:
        cfg = _read(path)
    except _MissingBaseError:
        if os.path.realpath(path) == os.path.abspath(path):
            raise
        cfg = _read(os.path.realpath(path))
        object.__setattr__(cfg, '_filename', path)  # the work dir is named after it
    if vars(cfg)['_imported_names']:  # a config of Python imports, where mmengine ignores both
        return cfg
    if not cfg:
        raise ConfigError(f'config {path} is empty')
    left = [path for name, node in cfg.items() for path in _remove_deletions(node, name)]
    if left:
        sys.stderr.write(f'warning: config {path}: no base has {first_few(left)}, so {_DELETE} has no effect there\n')
    import_custom_modules(cfg, path)
    return cfg


def import_custom_modules(cfg: Config, path: str) -> None:
    """Import the modules in ``custom_imports``.

    Args:
        cfg: The config.
        path: Its file, for the error.

    Raises:
        ConfigError: A module cannot be imported.
    """
    imports = cfg.get('custom_imports')
    if not imports:
        return
    try:
        import_modules_from_strings(**imports)
    except Exception as error:
        # mmengine names the module, and Python says why
        cause = error.__context__ if isinstance(error, ImportError) and error.__context__ else error
        name = f' ({error})' if cause is not error else ''
        folder = '. To find modules of the current folder, set PYTHONPATH=.'
        raise ConfigError(
            f'config {path}: custom_imports{name}: {_in_one_line(cause)}{_in_their_code(cause)}'
            f'{folder if isinstance(cause, ModuleNotFoundError) else ""}'
        ) from error


class _MissingBaseError(ConfigError):
    """A file in ``_base_`` does not exist."""


def _read(path: str) -> Config:
    try:
        if path.endswith(DATA_SUFFIXES):
            return read_data_config(path)
        return Config.fromfile(path, import_custom_modules=False)
    except UserError as error:
        files = _files(error)
        if not files:  # of a config that is data; it names its file
            raise
        raise ConfigError(f'config {files[-1]}: {error}') from error
    except Exception as error:
        raise _explained(error, path) from error


def _explained(error: Exception, path: str) -> ConfigError:
    """The error as one line."""
    *parents, file = _files(error) or [path]
    if file in parents:
        chain = ' -> '.join([*dict.fromkeys(parents[parents.index(file) :]), file])
        return ConfigError(f'config {file} inherits from itself: {chain}. Change one _base_')
    if isinstance(error, FileNotFoundError) and parents and not os.path.isfile(file):
        return _missing_base(file, parents[-1])
    if isinstance(error, ConfigParsingError) and ' not found!' in str(error):  # a config of Python imports
        return _missing_base(str(error).partition(' not found!')[0], file)
    if isinstance(error, OSError) and error.errno == errno.EACCES:
        return ConfigError(f'config {file} cannot be read: {error.strerror}')
    if isinstance(error, UnicodeDecodeError):
        return ConfigError(f'config {file} is not UTF-8 text ({error.reason} at byte {error.start})')
    if isinstance(error, SyntaxError):
        if Path(file).read_bytes().startswith(codecs.BOM_UTF8):
            return ConfigError(f'config {file} begins with a byte order mark. Save it as UTF-8 without it')
        return ConfigError(f'config {file}{f", line {error.lineno}" if error.lineno else ""}: {error.msg}')
    frames = [frame for frame, _ in traceback.walk_tb(error.__traceback__)]
    if isinstance(error, KeyError) and any(frame.f_code.co_name == '_substitute_base_vars' for frame in frames):
        return ConfigError(f'config {file}: {{{{_base_…}}}} names {error.args[0]!r}, which no file in _base_ has')
    return ConfigError(f'config {file}{_line(error, file)}: {_in_one_line(error)}')


def _missing_base(file: str, parent: str) -> _MissingBaseError:
    try:
        require_file(file, 'its base', CONFIG_SUFFIXES)
    except ConfigError as error:
        return _MissingBaseError(f'config {parent}: {error}')
    return _MissingBaseError(f'config {parent}: its base {file} cannot be read')


def _files(error: Exception) -> list[str]:
    """The file that was being read, after those that inherit from it."""
    found: list[str] = []
    # a function that raises an error again is there twice
    for frame in dict.fromkeys(frame for frame, _ in traceback.walk_tb(error.__traceback__)):
        reader = frame.f_code.co_name
        if reader in _READERS and frame.f_globals.get('__name__') == Config.__module__:
            file = os.path.abspath(os.path.expanduser(frame.f_locals['filename']))
            if reader in _INHERITING or found[-1:] != [file]:
                found.append(file)
    return found


def _line(error: BaseException, file: str) -> str:
    frames = traceback.walk_tb(error.__traceback__)
    lines = [line for frame, line in frames if os.path.abspath(frame.f_code.co_filename) == file]
    return f', line {lines[-1]}' if lines else ''


def _in_their_code(error: BaseException) -> str:
    """``' (FILE, line N)'`` of an error in an imported module; '' if it was not found."""
    frames = [one for one in traceback.extract_tb(error.__traceback__) if not one.filename.startswith('<frozen')]
    ours = not frames or frames[-1].filename in (
        __file__,
        importlib.__file__,
        inspect.getfile(import_modules_from_strings),
    )
    return '' if ours else f' ({frames[-1].filename}, line {frames[-1].lineno})'


def _in_one_line(error: BaseException) -> str:
    text = ' '.join(str(error).split())
    return f'{type(error).__name__}: {text if len(text) < _LONGEST else text[:_LONGEST] + "…"}'


def _remove_deletions(node: Any, path: str) -> Iterator[str]:
    """Remove ``_delete_`` where it had nothing to delete: it would become an argument."""
    if isinstance(node, dict):
        if node.pop(_DELETE, False):
            yield path
        inside: Iterable[tuple[Any, Any]] = node.items()
    else:
        inside = enumerate(node) if isinstance(node, list | tuple) else ()
    for key, inner in inside:
        yield from _remove_deletions(inner, f'{path}.{key}')
