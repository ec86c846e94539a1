# Copyright (c) addp_mm contributors. Apache-2.0.
"""Read configs in JSON and YAML, which run nothing: they are data, and name registered classes."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mmengine.config import Config

from addp_mm.checkpoints.atomic_write import write_text
from addp_mm.config.data_types import check_data_config
from addp_mm.config.literal_text import literal_config
from addp_mm.config.plain_values import from_plain, to_plain
from addp_mm.errors import ConfigError

DATA_SUFFIXES = ('.json', '.yaml', '.yml')
_BASE = '_base_'
_FOLDER = re.compile(r'\{\{\s*fileDirname\s*\}\}')
_MOST_VALUES = 1_000_000


def read_data_config(path: str) -> Config:
    """Read a config in JSON or YAML with the files that it inherits from.

    Nothing in it is run. Of mmengine's templates, ``{{fileDirname}}`` becomes the folder of the
    file that it is in; others such as ``{{$HOME:}}`` stay as they are.

    Args:
        path: The file. It exists.

    Raises:
        ConfigError: The file is damaged, or names something that could run code. See
            :func:`~addp_mm.config.data_types.check_data_config`.
    """
    values = _values(path, ())
    check_data_config(values, f'config {path}')
    return Config(values, filename=path, cfg_text=Path(path).read_text(encoding='utf-8'))


def _values(path: str, parents: tuple[str, ...]) -> dict[str, Any]:
    values = _load(path)
    bases = values.pop(_BASE, ())
    merged: dict[str, Any] = {}
    for base in [bases] if isinstance(bases, str) else bases:
        file = _base_file(base, path)
        if os.path.realpath(file) in map(os.path.realpath, (*parents, path)):
            raise ConfigError(f'config {path} inherits from itself: {base}. Change {_BASE}')
        inherited = _values(file, (*parents, path))
        twice = inherited.keys() & merged.keys()
        if twice:
            raise ConfigError(f'config {path}: Duplicate key {sorted(twice)[0]!r} in two files of {_BASE}')
        merged.update(inherited)
    try:
        # mmengine's own way to merge, with its _delete_
        return Config._merge_a_into_b(values, merged)  # noqa: SLF001  (no public way)
    except (TypeError, KeyError) as error:
        raise ConfigError(f'config {path}: {" ".join(str(error).split())}') from error


def _base_file(base: Any, path: str) -> str:
    file = Path(path).parent / str(base)
    if file.suffix not in DATA_SUFFIXES or not file.is_file():
        raise ConfigError(
            f'config {path}: its base {base} is not a file in JSON or YAML. A config in JSON or YAML runs no Python. '
            'Write the resolved config with addp dump-config, or inherit from this file in a config in Python'
        )
    return str(file)


def _load(path: str) -> dict[str, Any]:
    values = values_of_text(Path(path).read_text(encoding='utf-8'), Path(path).suffix, f'config {path}')
    return _with_folder(values, os.path.dirname(os.path.abspath(path)))


def _with_folder(value: Any, folder: str) -> Any:
    if isinstance(value, str):
        return _FOLDER.sub(lambda _: folder, value)
    if isinstance(value, dict):
        return {name: _with_folder(item, folder) for name, item in value.items()}
    return type(value)(_with_folder(item, folder) for item in value) if isinstance(value, list | tuple) else value


def values_of_text(text: str, suffix: str, where: str) -> dict[str, Any]:
    """Values of the text of a config, which is not run.

    Args:
        text: The text.
        suffix: '.py', '.json', '.yaml' or '.yml'. A text in Python can only assign data.
        where: What holds it, for the error.

    Raises:
        ConfigError: The text is damaged, more than data, or no config.
        OSError: The suffix is another one.
    """
    if suffix == '.py':
        return literal_config(text, where)
    if suffix not in DATA_SUFFIXES:
        raise OSError(f'a config is written in Python, JSON or YAML, not in {suffix!r}')
    try:
        values = json.loads(text) if suffix == '.json' else _yaml(text)
        _check_number_of_values(values)
        values = from_plain(values)
    except RecursionError as error:
        raise ConfigError(f'{where} is nested too deeply') from error
    except (ValueError, TypeError) as error:
        raise ConfigError(f'{where}: {" ".join(str(error).split())}') from error
    if not isinstance(values, Mapping):
        raise ConfigError(f'{where} holds a {type(values).__name__}, not a config: expected key: value')
    return dict(values)


def _yaml(text: str) -> Any:
    import yaml

    from addp_mm.safe_files.yaml_files import yaml_loader

    try:
        return yaml.load(text, Loader=yaml_loader())  # noqa: S506  (a loader of data)
    except yaml.YAMLError as error:
        raise ValueError(str(error)) from error


def _check_number_of_values(values: Any) -> None:
    """Refuse aliases of YAML that expand to more than the memory holds, or contain themselves."""
    waiting, count = [values], 0
    while waiting:
        node = waiting.pop()
        inside = node.values() if isinstance(node, dict) else node if isinstance(node, list | tuple) else ()
        count += len(inside)
        if count > _MOST_VALUES:
            raise ValueError(f'it has more than {_MOST_VALUES} values, or aliases that contain themselves')
        waiting += inside


def write_data_config(cfg: Config, path: str) -> None:
    """Write a config as JSON or YAML that :func:`read_data_config` reads.

    Args:
        cfg: The config.
        path: The file; its folder is created if it is missing.

    Raises:
        ConfigError: The config holds what is no data, or could not be read back: it imports modules
            of other packages, or names objects that are not registered.
    """
    values = cfg.to_dict()
    try:
        plain = to_plain(values)
    except ValueError as error:
        raise ConfigError(f'config {cfg.filename}: {error}') from error
    check_data_config(from_plain(plain), f'config {cfg.filename}')
    if path.endswith('.json'):
        text = json.dumps(plain, indent=2)
    else:
        import yaml

        text = yaml.safe_dump(plain, sort_keys=False)
    write_text(path, text + '\n')
