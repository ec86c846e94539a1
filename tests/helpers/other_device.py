# Copyright (c) addp_mm contributors. Apache-2.0.
"""A device that is not here: tensors that say they are on it, and are computed on the CPU.

It refuses what a device like MPS refuses: float64, tensors of two devices in one call, and
operators without a kernel. It shows that code keeps to a device, not that a real one is right.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten, tree_map

KIND = 'meta'  # every build of torch has it, and it has no driver
DEVICE = torch.device(KIND)
_TENSOR = torch.tensor
# take indices, or a source, of another device
_MIXED = (
    'aten::copy_',
    'aten::_to_copy',
    'aten::index',
    'aten::index_put',
    'aten::index_put_',
    'aten::_index_put_impl_',
)


class DeviceTensor(Tensor):
    """A tensor on :data:`DEVICE`, whose values are those of ``inner`` on the CPU."""

    @staticmethod
    def __new__(cls, inner: Tensor) -> DeviceTensor:
        made = Tensor._make_wrapper_subclass(
            cls, inner.size(), strides=inner.stride(), dtype=inner.dtype, device=DEVICE
        )
        made.inner = inner
        return made

    __torch_function__ = torch._C._disabled_torch_function_impl

    def new_tensor(self, data: Any) -> Tensor:
        return _tensor(data, dtype=self.dtype, device=DEVICE)

    def tolist(self) -> list:
        return self.inner.tolist()

    def __getitem__(self, item: Any) -> Tensor:
        return super().__getitem__(_indices(item))

    def __setitem__(self, item: Any, value: Any) -> None:
        super().__setitem__(_indices(item), value)

    @classmethod
    def __torch_dispatch__(cls, func, types, args=(), kwargs=None):
        return _call(func, args, kwargs or {}, ())


class OtherDevice(TorchDispatchMode):
    """A context in which :data:`DEVICE` exists.

    Args:
        missing: Names of operators without a kernel, such as 'torchvision::nms'.
    """

    def __init__(self, missing: Collection[str] = ()) -> None:
        super().__init__()
        self.missing = missing

    def __enter__(self) -> OtherDevice:
        torch.tensor = _tensor
        return super().__enter__()

    def __exit__(self, *error: Any) -> None:
        super().__exit__(*error)
        torch.tensor = _TENSOR

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        return _call(func, args, kwargs or {}, self.missing)


def _tensor(data: Any, *, device: Any = None, **settings: Any) -> Tensor:
    """``torch.tensor``, which would make a tensor without values on this device."""
    made = _TENSOR(data, **settings)
    return made if device is None else made.to(device)


def _indices(item: Any) -> Any:
    """Tensors instead of lists, which would become tensors without values on this device."""
    if isinstance(item, tuple):
        return tuple(map(_indices, item))
    return _TENSOR(item) if isinstance(item, list) else item


def _call(func: Any, args: tuple, kwargs: dict, missing: Collection[str]) -> Any:
    name = func._schema.name
    flat = tree_flatten((args, kwargs))[0]
    ours = [each for each in flat if isinstance(each, DeviceTensor)]
    wanted = kwargs.get('device')
    there = wanted.type == KIND if wanted is not None else bool(ours)
    if name in missing and ours:
        raise NotImplementedError(f"Could not run '{name}' with arguments from the '{KIND.upper()}' backend")
    plain = [each for each in flat if isinstance(each, Tensor) and not isinstance(each, DeviceTensor) and each.dim()]
    assert not any(each.is_meta for each in plain), f'{name}: a tensor without values'
    if ours and plain and name not in _MIXED:
        raise RuntimeError(f'{name}: expected all tensors to be on the same device, but found {KIND} and cpu')
    if there and wanted is not None:
        kwargs = dict(kwargs, device=torch.device('cpu'))
    inner_args, inner_kwargs = tree_map(
        lambda each: each.inner if isinstance(each, DeviceTensor) else each, (args, kwargs)
    )
    result = func(*inner_args, **inner_kwargs)
    known = {id(each.inner): each for each in ours}
    filled = [isinstance(flat[0], Tensor) and not isinstance(flat[0], DeviceTensor)] if flat else []
    if name == 'aten::copy_' and filled[0]:
        return args[0]  # from the device to the CPU

    def wrapped(value: Any) -> Any:
        if not isinstance(value, Tensor) or id(value) in known or not there:
            return known.get(id(value), value)
        if value.dtype in (torch.float64, torch.complex128):
            raise TypeError(f"Cannot convert a {KIND.upper()} Tensor to float64 dtype: it doesn't support float64")
        return DeviceTensor(value)

    return tree_map(wrapped, result)
