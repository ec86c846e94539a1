# Copyright (c) addp_mm contributors. Apache-2.0.
"""Record the collective operations that torch really runs."""

from __future__ import annotations

from typing import Any

from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from addp_mm.analysis.communication.exchange import ALL_GATHER, ALL_REDUCE, REDUCE_SCATTER

# Operation of torch: kind, and the argument that is the whole tensor.
_OPERATIONS = {
    'allreduce_': (ALL_REDUCE, 0),
    'allgather_': (ALL_GATHER, 0),
    '_allgather_base_': (ALL_GATHER, 0),
    'reduce_scatter_': (REDUCE_SCATTER, 1),
    '_reduce_scatter_base_': (REDUCE_SCATTER, 1),
}


class RecordExchanges(TorchDispatchMode):
    """Records kind and size in bytes of each collective operation while it is active.

    All of them pass torch's dispatcher: those that DistributedDataParallel starts in C++ during the
    backward pass, those of FullyShardedDataParallel, and those of a model or a hook.

    >>> with RecordExchanges() as record:
    ...     torch.distributed.all_reduce(torch.zeros(3))
    >>> record.found
    [('all-reduce', 12)]
    """

    def __init__(self) -> None:
        super().__init__()
        self.found: list[tuple[str, int]] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        if func.namespace == 'c10d':
            name = func.overloadpacket.__name__
            kind, whole = _OPERATIONS.get(name, (name, 0))  # others keep torch's name
            tensors = [leaf for leaf in tree_leaves(args[whole]) if isinstance(leaf, Tensor)]
            self.found.append((kind, sum(tensor.nbytes for tensor in tensors)))
        return func(*args, **(kwargs or {}))
