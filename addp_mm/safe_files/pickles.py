# Copyright (c) addp_mm contributors. Apache-2.0.
"""Read pickles that hold data only.

A pickle is a program: it names functions, and calls them. This unpickler only finds plain
containers, numpy arrays, tensors and OpenMMLab's data structures. All else is refused before it is
imported.
"""

from __future__ import annotations

import io
import pickle
import sys
from collections import Counter
from collections.abc import Callable
from functools import cache
from importlib import import_module
from pathlib import PosixPath, PurePosixPath
from typing import IO, Any

from addp_mm.errors import UserError
from addp_mm.safe_files.errors import UnsafeFileError

_BUILTINS = ('set', 'frozenset', 'list', 'dict', 'tuple', 'int', 'float', 'bool', 'str', 'complex', 'slice', 'object')
# classes in C, whose attributes a pickle cannot set
_PLAIN = {
    *(('builtins', name) for name in _BUILTINS),
    *(('collections', name) for name in ('OrderedDict', 'defaultdict')),
    *(('datetime', name) for name in ('datetime', 'date', 'timedelta')),
    ('torch', 'Size'),
    ('torch', 'device'),
}
# classes in Python whose objects hold data in their attributes
_STRUCTURES = {
    'mmengine.structures.base_data_element': ('BaseDataElement',),
    'mmengine.structures.instance_data': ('InstanceData',),
    'mmengine.structures.label_data': ('LabelData',),
    'mmengine.structures.pixel_data': ('PixelData',),
    'mmdet.structures.det_data_sample': ('DetDataSample',),
    'mmdet.structures.track_data_sample': ('TrackDataSample',),
    'mmdet.structures.reid_data_sample': ('ReIDDataSample',),
    'mmdet.structures.bbox.horizontal_boxes': ('HorizontalBoxes',),
    'mmdet.structures.mask.structures': ('BitmapMasks', 'PolygonMasks'),
    'mmseg.structures.seg_data_sample': ('SegDataSample',),
    'mmpretrain.structures.data_sample': ('DataSample',),
    'mmpretrain.structures.multi_task_data_sample': ('MultiTaskDataSample',),
}
# names of modules in protocols 0 to 2, which Python 2 has as well
_MODULES_NOW = {'__builtin__': 'builtins', 'copy_reg': 'copyreg'}
_NUMPY_CORES = ('numpy.core', 'numpy._core')


def load(file: IO[bytes], **options: Any) -> Any:
    """``pickle.load`` for data.

    Args:
        file: A binary file.
        **options: ``encoding``, ``errors`` and ``fix_imports``, as in ``pickle.load``.

    Returns:
        The stored object.

    Raises:
        UnsafeFileError: The pickle names a class or function that is not allowed, or is damaged.
        OSError: The file cannot be read.
    """
    from addp_mm.checkpoints.numpy_pickles import with_numpy

    try:
        return with_numpy(_DataUnpickler(file, **options).load())
    except (UserError, OSError, MemoryError):
        raise
    except Exception as error:  # a damaged pickle can raise any exception
        reason = str(error) or type(error).__name__
        raise UnsafeFileError(f'the pickle is damaged or refused: {reason}') from error


def loads(content: bytes, **options: Any) -> Any:
    """As :func:`load`, of bytes."""
    return load(io.BytesIO(content), **options)


class _DataUnpickler(pickle.Unpickler):
    """Finds the allowed classes; functions and Python's classes are copies for this one pickle."""

    def __init__(self, file: IO[bytes], **options: Any) -> None:
        super().__init__(file, **options)
        self._name = getattr(file, 'name', '')
        self._found: dict[tuple[str, str], Any] = {}

    def find_class(self, module: str, name: str) -> Any:
        """The class or function of a name in the pickle."""
        key = _MODULES_NOW.get(module, module), name
        if key not in self._found:
            self._found[key] = self._find(*key)
        return self._found[key]

    def _find(self, module: str, name: str) -> Any:
        if (module, name) in _PLAIN:
            return getattr(import_module(module), name)
        if (module, name) in _functions():
            make = _functions()[module, name]
            # a pickle can set attributes of what it finds; those of the original must not change
            return lambda *args, **kwargs: make(*args, **kwargs)
        if (module, name) in _numpy():
            return _numpy()[module, name]
        if name in _STRUCTURES.get(module, ()):
            return _copy_of(getattr(import_module(module), name))
        found = _dtype(module, name) or _allowed_by_the_user(module, name)
        if found is None:
            raise UnsafeFileError(
                f'{self._name or "the pickle"} is refused: it names {module}.{name}, and loading that could run code. '
                'Nothing of it was run. Ask its author for JSON or arrays instead. If you trust the file and the '
                'class only holds data, allow the class with torch.serialization.add_safe_globals.'
            )
        return found


def _copy_of(cls: type) -> type:
    """A subclass whose objects become objects of ``cls`` when their attributes are set."""

    def __setstate__(self: Any, state: Any) -> None:  # noqa: N807  (defined for the class below)
        if not isinstance(state, dict):
            raise UnsafeFileError(f'{cls.__name__} in a pickle has no attributes but a {type(state).__name__}')
        self.__dict__.update(state)
        object.__setattr__(self, '__class__', cls)  # the classes restrict their own

    return type(cls.__name__, (cls,), {'__setstate__': __setstate__, '__module__': cls.__module__})


def _dtype(module: str, name: str) -> Any:
    """A data type of torch, else None."""
    if module != 'torch':
        return None
    torch = import_module('torch')
    found = vars(torch).get(name)
    return found if isinstance(found, torch.dtype) else None


def _allowed_by_the_user(module: str, name: str) -> Any:
    torch = sys.modules.get('torch')
    if torch is None:
        return None
    for entry in torch.serialization.get_safe_globals():
        found, named = entry if isinstance(entry, tuple) else (entry, f'{entry.__module__}.{entry.__qualname__}')
        if named == f'{module}.{name}':
            return found
    return None


@cache
def _numpy() -> dict[tuple[str, str], Any]:
    """What replaces numpy's types, whose state in a pickle numpy does not check."""
    from addp_mm.checkpoints.numpy_pickles import stand_ins

    return {(name.rpartition('.')[0], name.rpartition('.')[2]): found for found, name in stand_ins()}


@cache
def _functions() -> dict[tuple[str, str], Callable]:
    """Functions that build what a pickle may hold, by the names in it of functions and classes."""
    functions: dict[tuple[str, str], Callable] = {
        ('_codecs', 'encode'): _latin1_bytes,
        ('builtins', 'bytes'): _bytes,
        ('collections', 'Counter'): Counter,
        ('pathlib', 'PosixPath'): PosixPath,
        ('pathlib', 'PurePosixPath'): PurePosixPath,
        ('mmengine.config.config', 'ConfigDict'): _config_dict,
        ('torch._utils', '_rebuild_tensor_v2'): _tensor,
        ('torch._utils', '_rebuild_parameter'): _parameter,
        ('torch.storage', '_load_from_bytes'): _storage,
    }
    for core in _NUMPY_CORES:
        functions[f'{core}.numeric', '_frombuffer'] = _array
    return functions | {name: found for name, found in _numpy().items() if not isinstance(found, type)}


def _config_dict(*args: Any) -> Any:
    from mmengine.config import ConfigDict

    return ConfigDict(*args)


def _bytes(content: bytes = b'') -> bytes:
    if not isinstance(content, bytes):  # bytes(n) makes n zeros
        raise UnsafeFileError(f'a pickle asks for bytes of {content!r:.40}')
    return content


def _latin1_bytes(text: str, encoding: str) -> bytes:
    """Bytes as Python writes them in protocols 0 to 2."""
    if encoding != 'latin1':
        raise UnsafeFileError(f'a pickle asks for the text encoding {encoding!r}; bytes are stored as latin1')
    return text.encode('latin1')


def _array(content: Any, kind: Any, shape: tuple, order: Any, *_: Any) -> Any:
    """An array as numpy writes it in protocol 5."""
    import numpy as np

    return np.frombuffer(content, kind.dtype).reshape(shape, order=order)


def _storage(content: bytes) -> Any:
    """The storage of a tensor; torch itself would read it without its check."""
    from addp_mm.checkpoints.reading import safe_load

    return safe_load(io.BytesIO(content), 'cpu')


def _tensor(storage: Any, offset: int, size: tuple, stride: tuple, *rest: Any) -> Any:
    import torch
    from torch._utils import _rebuild_tensor_v2  # the pickles of tensors name it

    # torch enlarges a storage that is too small
    last = offset + sum((side - 1) * step for side, step in zip(size, stride, strict=True))
    stored = torch.empty(0, dtype=storage.dtype).set_(storage).numel()
    if all(size) and last >= stored:
        raise UnsafeFileError(f'a tensor of the size {tuple(size)} has {stored} stored values')
    return _rebuild_tensor_v2(storage, offset, size, stride, *rest[:2])


def _parameter(value: Any, requires_grad: bool, *_: Any) -> Any:
    from torch.nn import Parameter

    return Parameter(value, requires_grad)
