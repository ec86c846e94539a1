# Copyright (c) addp_mm contributors. Apache-2.0.
"""Run a model of any size for its shapes alone, and count the bytes that are alive meanwhile."""

from __future__ import annotations

import mmap
import weakref
from collections.abc import Iterator

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_map_only

aten = torch.ops.aten
# Products are never computed: their numbers would cost time, and no shape depends on them.
PRODUCTS = {aten.mm, aten.addmm, aten.bmm, aten.baddbmm, aten.convolution, aten.convolution_backward}
# Made in the likeness of a tensor, but not from its numbers; what is written into them decides, for
# instance in Mask2Former, which masks count.
FRESH = {
    aten.new_zeros,
    aten.new_ones,
    aten.new_full,
    aten.new_empty,
    aten.zeros_like,
    aten.ones_like,
    aten.full_like,
    aten.empty_like,
}
# A lazy result smaller than this is filled with zeros at once: below it a page of memory is wasted.
PAGE = 1 << 14
# Numbers are kept where they are few, for anchors, boxes and targets; a result of more elements is
# lazy.
FEW = 1 << 22


class DryRun(TorchDispatchMode):
    """Inside, large tensors have shapes and storages, but no numbers.

    Networks are run as they are, forward and backward, checkpointing and autocast included.
    Products, and whatever is computed from their results, are lazy: zeros in address space that
    nothing has written to and that takes no memory. Small tensors that depend on no product
    (anchors, boxes, masks, targets) hold true numbers, and so do integers and truth values derived
    from lazy numbers; so code that looks at them goes its usual way, which it cannot do on
    PyTorch's fake tensors. ``torch.nn.functional.scaled_dot_product_attention`` is replaced by a
    kernel that keeps what the fused ones of a GPU keep (queries, keys, values, bias, result, one
    number a row), see :mod:`addp_mm.analysis.fused_attention`.

    Bytes are those of storages, each counted once, from its first appearance until nothing holds it
    any more.

    Args:
        skip: Whether to leave out the arithmetic. With False everything is computed, and only bytes
            are counted.

    Attributes:
        live (int): Bytes of all storages alive that were made inside.
        peak (int): The most there were, since :meth:`reset_peak`.

    Example:
        >>> with DryRun() as run:
        ...     layer = torch.nn.Linear(65536, 65536)
        ...     shape = layer(torch.zeros(1, 65536)).shape
        >>> shape, run.peak > 2**34
        (torch.Size([1, 65536]), True)
    """

    def __init__(self, skip: bool = True) -> None:
        super().__init__()
        self.skip = skip
        self.live = self.peak = 0
        self._known: dict[int, weakref.ref] = {}
        self._lazy: set[int] = set()
        self._shapes_of: dict[tuple, object] = {}

    def __enter__(self):
        from addp_mm.analysis.fused_attention import fused_attention_everywhere

        self._attention = fused_attention_everywhere()
        self._attention.__enter__()
        return super().__enter__()

    def __exit__(self, *error):
        super().__exit__(*error)
        self._attention.__exit__(*error)

    def reset_peak(self) -> None:
        """Start the search for the peak anew."""
        self.peak = self.live

    def is_lazy(self, tensor: Tensor) -> bool:
        """Whether a tensor has no numbers."""
        return id(tensor.untyped_storage()) in self._lazy

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        out = None
        if self.skip:
            out = self._skipped(func, args, kwargs)
        if out is None:
            out = func(*args, **kwargs)
        for tensor in _tensors(out):
            self._watch(tensor.untyped_storage())
        return out

    def _watch(self, storage: torch.UntypedStorage, lazy: bool = False) -> None:
        key = id(storage)
        if lazy:
            self._lazy.add(key)
        if key in self._known:
            return
        size = storage.nbytes()

        def freed(_):
            self.live -= size
            self._known.pop(key, None)
            self._lazy.discard(key)

        self._known[key] = weakref.ref(storage, freed)
        self.live += size
        self.peak = max(self.peak, self.live)

    def _skipped(self, func, args, kwargs):
        """What ``func`` would return, without numbers; None if it has to be computed."""
        schema = func._schema
        written = [(a.alias_info is not None and a.alias_info.is_write) for a in schema.arguments]
        if any(r.alias_info is not None and not r.alias_info.is_write for r in schema.returns):
            return None  # a view
        tensors = list(_tensors((args, kwargs)))
        lazy = any(map(self.is_lazy, tensors)) and func.overloadpacket not in FRESH
        if any(written) and 'batch_norm' not in schema.name:  # that writes its running statistics besides
            target = args[0] if args else None
            in_place = isinstance(target, Tensor) and written[0] and len(schema.returns) == 1
            return target if in_place and self.is_lazy(target) else None
        product = func.overloadpacket in PRODUCTS or func.namespace == 'addp_mm_analysis'
        shapes = self._remembered_shapes(func, args, kwargs)
        leaves = list(_tensors(shapes))
        if not leaves:
            return None
        floats = any(leaf.is_floating_point() for leaf in leaves)
        many = any(leaf.numel() > FEW for leaf in leaves) or (not tensors and leaves[0].numel() > PAGE and floats)
        if product or many or (lazy and floats and not _picks(func)):
            return (
                self._zeros_like(shapes)
                if isinstance(shapes, Tensor)
                else type(shapes)(self._zeros_like(part) if isinstance(part, Tensor) else part for part in shapes)
            )
        return None

    def _remembered_shapes(self, func, args, kwargs):
        """:meth:`_shapes`, once for equal calls: the blocks of a network repeat themselves."""
        if any(leaf.dtype is torch.bool for leaf in _tensors((args, kwargs))):
            return self._shapes(func, args, kwargs)
        key = (func, _key(args), _key(kwargs))
        if key not in self._shapes_of:
            self._shapes_of[key] = self._shapes(func, args, kwargs)
        return self._shapes_of[key]

    @staticmethod
    def _shapes(func, args, kwargs):
        """The results as meta tensors; None where shapes depend on numbers or nobody wrote a meta kernel."""
        if func.overloadpacket is aten.index:
            # a mask picks as many as it holds: this number is true, what it picks need not be read
            args = (
                args[0],
                [i.nonzero(as_tuple=True) if i is not None and i.dtype is torch.bool else (i,) for i in args[1]],
            )
            args = (args[0], [index for group in args[1] for index in group])
        args, kwargs = tree_map_only(Tensor, _on_meta, (args, kwargs))
        if 'device' in kwargs or any(a.name == 'device' for a in func._schema.arguments):
            kwargs = {**kwargs, 'device': torch.device('meta')}
        if kwargs.get('pin_memory'):
            kwargs = {**kwargs, 'pin_memory': False}
        if 'generator' in kwargs:
            kwargs = {**kwargs, 'generator': None}
        try:
            return func(*args, **kwargs)
        except (NotImplementedError, RuntimeError, ZeroDivisionError):  # batch norm's meta kernel divides by n - 1
            return None

    def _zeros_like(self, meta: Tensor) -> Tensor:
        extent = sum((n - 1) * s for n, s in zip(meta.shape, meta.stride(), strict=True)) + 1 if meta.numel() else 0
        size = extent * meta.element_size()
        if size < PAGE:
            flat = torch.zeros(extent, dtype=meta.dtype)
        else:
            memory = mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
            flat = torch.frombuffer(memory, dtype=meta.dtype)
        self._watch(flat.untyped_storage(), lazy=True)
        return flat.as_strided(meta.shape, meta.stride())


def _tensors(node) -> Iterator[Tensor]:
    """Tensors in nested lists and dicts of arguments; PyTorch's own trees take most of a dry run's time."""
    if isinstance(node, Tensor):
        yield node
    elif isinstance(node, (list, tuple)):
        for part in node:
            yield from _tensors(part)
    elif isinstance(node, dict):
        yield from _tensors(list(node.values()))


def _key(node):
    """What the shape of a result can depend on, hashable."""
    if isinstance(node, Tensor):
        return node.shape, node.stride(), node.dtype
    if isinstance(node, (list, tuple)):
        return tuple(map(_key, node))
    if isinstance(node, dict):
        return tuple((name, _key(part)) for name, part in node.items())
    return None if isinstance(node, torch.Generator) else (type(node), node)


def _picks(func) -> bool:
    """Whether integers among the results decide what is looked at next."""
    return func.overloadpacket in (aten.topk, aten.sort, aten.max, aten.min)


def _on_meta(tensor: Tensor) -> Tensor:
    return torch.empty_strided(tensor.shape, tensor.stride(), dtype=tensor.dtype, device='meta')


def storage_bytes(tensors) -> int:
    """Bytes of the storages of tensors, each counted once."""
    return sum({id(t.untyped_storage()): t.untyped_storage().nbytes() for t in tensors}.values())
