# Copyright (c) addp_mm contributors. Apache-2.0.
"""Read paths, classes and defaults from dataset configs, for the checks."""

import inspect
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from mmengine.registry import DATASETS

from addp_mm.checks.type_lookup import find_type
from addp_mm.datasets.errors import DatasetError, check_folder_exists
from addp_mm.errors import first_few

# mmsegmentation's datasets pass **kwargs to their base class unchanged, except this one.
_SETS_DEFAULTS = ('REFUGEDataset',)


def local_datasets(cfg: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    """Yield the datasets inside a dataset config, then the config. Remote paths are left out."""
    for inner in [cfg.get('dataset'), *(cfg.get('datasets') or [])]:
        if inner is not None:
            yield from local_datasets(inner)
    if not any('://' in str(cfg.get(key, '')) for key in ('data_root', 'ann_file')):
        yield cfg


def prefix_of(cfg: Mapping) -> dict[str, str]:
    """``data_prefix`` of a dataset config as a dict; a string is the prefix of the images."""
    prefix = cfg.get('data_prefix')
    return dict(img_path=prefix) if isinstance(prefix, str) else dict(prefix or {})


def transforms_of(pipeline: Any) -> Iterator[Mapping[str, Any]]:
    """Yield the transform configs of a pipeline in order, including those inside others."""
    if isinstance(pipeline, Mapping):
        yield pipeline
        pipeline = list(pipeline.values())
    for part in pipeline if isinstance(pipeline, list | tuple) else ():
        yield from transforms_of(part)


def classes_of(cfg: Mapping, package: str) -> Sequence[str] | None:
    """Classes of a dataset config; if it has none, those of the dataset class.

    Args:
        cfg: Config of the dataset.
        package: Package of the dataset class, if it is not in the default scope.
    """
    classes = (cfg.get('metainfo') or {}).get('classes')
    if isinstance(classes, str):
        return read_text(Path(classes)).split('\n')
    return own_classes(cfg, package) if classes is None else classes


def own_classes(cfg: Mapping, package: str) -> Sequence[str] | None:
    """Classes of the dataset class. The classes of the config are ignored."""
    return getattr(dataset_class(cfg, package), 'METAINFO', {}).get('classes')


def dataset_class(cfg: Mapping, package: str) -> type | None:
    """The class of a dataset config, looked up in the default scope, then in ``package``."""
    kind = cfg.get('type')
    return find_type(kind, DATASETS) or find_type(kind, DATASETS, package)


def default_of(cls: type | None, argument: str) -> Any:
    """Default of an argument of a dataset class, read from the signatures of its ``__init__``.

    Returns:
        The default. None if there is no default, or if the class takes ``**kwargs`` and may set the
        argument itself.
    """
    for base in cls.__mro__ if cls else ():
        if '__init__' not in vars(base):
            continue
        parameter = inspect.signature(vars(base)['__init__']).parameters.get(argument)
        if parameter is not None:
            return None if parameter.default is parameter.empty else parameter.default
        if not base.__module__.startswith('mmseg.') or base.__name__ in _SETS_DEFAULTS:
            return None
    return None


def join(cfg: Mapping, path: str | None) -> Path:
    """``path`` below the ``data_root`` of a dataset config."""
    return Path(cfg.get('data_root') or '') / (path or '')


def read_text(path: Path) -> str:
    """Read an annotation file.

    Raises:
        DatasetError: The file does not exist, or is not text.
    """
    if not path.is_file():
        check_folder_exists(path.parent)
        raise DatasetError(f'{path}: this annotation file does not exist. Check ann_file and data_root in the config.')
    try:
        return path.read_text()
    except UnicodeDecodeError as error:
        raise DatasetError(f'{path}: not a text file ({error}). Check ann_file in the config.') from error


def quoted(names: Iterable, count: int = 5) -> str:
    """The first ``count`` names in quotation marks, and the number of the others."""
    return first_few(map(repr, names), count)
