# Copyright (c) addp_mm contributors. Apache-2.0.
"""What the checks of dataset configs read: paths, classes, counts."""

import inspect
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from mmengine.registry import DATASETS

from addp_mm.datasets.errors import DatasetError, check_folder_exists
from addp_mm.datasets.fashion.scene_writer import MARKER
from addp_mm.errors import first_few


def local_parts(cfg: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    """A dataset config and those that it wraps, these first; without those of remote paths."""
    for inner in [cfg.get('dataset'), *(cfg.get('datasets') or [])]:
        if inner is not None:
            yield from local_parts(inner)
    if not any('://' in str(cfg.get(key, '')) for key in ('data_root', 'ann_file')):
        yield cfg


def prefix_of(cfg: Mapping) -> dict[str, str]:
    """``data_prefix`` of a dataset config as a dict; a string is that of the images."""
    prefix = cfg.get('data_prefix')
    return dict(img_path=prefix) if isinstance(prefix, str) else dict(prefix or {})


def transforms_of(pipeline: Any) -> Iterator[Mapping[str, Any]]:
    """Configs of a pipeline's transforms in their order, also of those inside others."""
    parts = pipeline if isinstance(pipeline, (list, tuple)) else ()
    if isinstance(pipeline, Mapping):
        yield pipeline
        parts = pipeline.values()
    for part in parts:
        yield from transforms_of(part)


def classes_of(cfg: Mapping, scope: str, kind: str | type) -> Sequence[str] | None:
    """Classes of the config, else those that the dataset class itself has."""
    classes = (cfg.get('metainfo') or {}).get('classes')
    if isinstance(classes, str):
        return read_text(Path(classes)).split('\n')
    if classes is not None:
        return classes
    return getattr(dataset_class(kind, scope), 'METAINFO', {}).get('classes')


def dataset_class(kind: str | type | None, scope: str) -> type | None:
    """The class of a dataset, looked up in the package ``scope`` where its name says none."""
    if not isinstance(kind, str):
        return kind
    return DATASETS.get(kind if '.' in kind else f'{scope}.{kind}')


def default_of(cls: type | None, argument: str) -> Any:
    """What a class takes for ``argument`` where a config does not say it, read from its signatures.

    Returns:
        The default; None where there is none, or where an ``__init__`` deals with the argument in
        its body.
    """
    for base in getattr(cls, '__mro__', ()):
        function = vars(base).get('__init__')
        if base is object or not inspect.isfunction(function):
            continue
        parameter = inspect.signature(function).parameters.get(argument)
        if parameter is not None:
            return None if parameter.default is parameter.empty else parameter.default
        if argument in _names_in(function):
            return None
    return None


def _names_in(function) -> set[str]:
    """Names of attributes, of keyword arguments and of dict keys that stand in the body of a function."""
    code = function.__code__
    return {
        *code.co_names,
        *(
            name
            for constant in code.co_consts
            for name in (constant if isinstance(constant, tuple) else (constant,))
            if isinstance(name, str)
        ),
    }


def expected_images(cfg: Mapping, folder: Path) -> int | None:
    """How many images a folder of FashionScenes should hold, from the note that its writer leaves."""
    root = Path(cfg.get('data_root') or '')
    marker = root / MARKER
    if not marker.is_file() or not folder.is_relative_to(root):
        return None
    try:
        manifest = json.loads(marker.read_text())
    except json.JSONDecodeError as error:
        raise DatasetError(f'{marker}: damaged ({error}). Delete {root} and write the data set again.') from error
    kind, _, split = folder.relative_to(root).as_posix().partition('/')
    return manifest.get(split if kind in ('scenes', 'labels') else f'{kind}_{split}')


def join(cfg: Mapping, path: str | None) -> Path:
    return Path(cfg.get('data_root') or '') / (path or '')


def read_text(path: Path) -> str:
    if not path.is_file():
        check_folder_exists(path.parent)
        raise DatasetError(f'{path}: no such annotation file. Check ann_file and data_root in the config.')
    try:
        return path.read_text()
    except UnicodeDecodeError as error:
        raise DatasetError(f'{path}: not a text file ({error}).') from error


def quoted(names: Iterable, count: int = 5) -> str:
    return first_few(map(repr, names), count)
