# Copyright (c) addp_mm contributors. Apache-2.0.
"""Make the OpenMMLab packages read pickles, YAML, arrays and archives as data."""

from __future__ import annotations

import functools
from typing import Any

from addp_mm.compat.importing import ModuleView, replace
from addp_mm.safe_files.errors import UnsafeFileError


def read_pickles_as_data(module: Any) -> None:
    """Make a module that uses ``pickle`` read pickles with :mod:`addp_mm.safe_files.pickles`.

    Args:
        module: ``mmengine.fileio.handlers.pickle_handler``, ``mmpretrain.datasets.cifar``, or
            another module with ``import pickle`` that reads files of users.
    """
    from addp_mm.safe_files import pickles

    module.pickle = ModuleView('pickle', load=pickles.load, loads=pickles.loads)


def read_yaml_as_data(module: Any) -> None:
    """Make mmengine read YAML without tags that run code.

    Args:
        module: ``mmengine.fileio.handlers.yaml_handler``.
    """
    from addp_mm.safe_files.yaml_files import yaml_loader

    module.Loader = yaml_loader()


def name_refused_files(module: Any) -> None:
    """Make ``mmengine.load`` name the file that is refused.

    Args:
        module: ``mmengine.fileio.io``.
    """
    replace(module, 'load', _make_load)


def _make_load(original: Any) -> Any:

    def load(file: Any, *args: Any, **kwargs: Any) -> Any:
        name = file if isinstance(file, str) else getattr(file, 'name', file)
        try:
            return original(file, *args, **kwargs)
        except UnsafeFileError as error:
            raise UnsafeFileError(f'{name}: {error}') from error
        except RecursionError as error:
            raise UnsafeFileError(f'{name} is nested too deeply to be read. Write the file again.') from error
        except Exception as error:
            tag = getattr(error, 'problem', None) or ''
            if type(error).__name__ == 'ConstructorError' and 'python/' in tag:
                line = error.problem_mark.line + 1  # type: ignore[attr-defined]  # yaml's errors have it
                raise UnsafeFileError(
                    f'{name}, line {line}, is refused: {tag}, which could run code. Nothing of it was run. '
                    'Write plain YAML or JSON.'
                ) from error
            raise

    return load


def read_arrays_as_data(module: Any) -> None:
    """Make a module read ``.npy`` files without pickles.

    Args:
        module: ``mmdet.datasets.openimages``, which allows them.
    """
    import numpy as np

    @functools.wraps(np.load)
    def load(file: Any, mmap_mode: Any = None, **_: Any) -> Any:
        return np.load(file, mmap_mode, allow_pickle=False)

    module.np = ModuleView('numpy', load=load)


def unpack_inside_the_folder(module: Any) -> None:
    """Make a module unpack tar files without names that leave the folder, links and devices.

    Args:
        module: ``mmpretrain.datasets.utils``. zipfile already keeps names inside the folder.
    """
    import tarfile

    def open_as_data(*args: Any, **kwargs: Any) -> tarfile.TarFile:
        archive = tarfile.open(*args, **kwargs)  # noqa: SIM115  (the caller closes it)
        archive.extraction_filter = tarfile.data_filter
        return archive

    module.tarfile = ModuleView('tarfile', open=open_as_data)
