# Copyright (c) addp_mm contributors. Apache-2.0.
"""Which operators of mmcv a model calls, and whether gradients pass through them."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from types import ModuleType

import torch
from torch import Tensor


@dataclass(frozen=True)
class Uses:
    """Operators that a model calls, and nodes of autograd that pass gradients to their inputs."""

    operators: frozenset[str] = frozenset()
    nodes: frozenset[str] = frozenset()

    def __or__(self, other: Uses) -> Uses:
        return Uses(self.operators | other.operators, self.nodes | other.nodes)


def operators(*names: str) -> Uses:
    """Operators without a gradient."""
    return Uses(frozenset(names))


def operator(name: str, function: str, *backward: str) -> Uses:
    """An operator with a gradient.

    Args:
        name: Its name in ``mmcv._ext``, without a step.
        function: Name of mmcv's function, without the ending.
        *backward: Its steps backward. Defaults to 'backward'.
    """
    steps = ('forward', *(backward or ('backward',)))
    return Uses(frozenset(f'{name}_{step}' for step in steps), frozenset({f'{function}FunctionBackward'}))


NMS = operators('nms')
ROI = operator('roi_align', 'RoIAlign')
DEFORM = operator('deform_conv', 'DeformConv2d', 'backward_input', 'backward_parameters')


class WatchedOperators:
    """Replaces the operators of an extension by ones that note their names.

    Attributes:
        called: Names of the operators of ``mmcv._ext`` that were called.
        gradients: For each kind of node that was watched, whether a gradient of its inputs was
            other than zero, one value for each input that has a gradient.
        finite: Whether all those gradients were finite.
    """

    def __init__(self, ext: ModuleType, monkeypatch) -> None:
        self.called: set[str] = set()
        self.gradients: dict[str, dict[int, bool]] = defaultdict(dict)
        self.finite = True
        for name, operator in vars(ext).copy().items():
            if callable(operator) and not name.startswith('_'):
                monkeypatch.setattr(ext, name, self._noting(name, operator))

    def _noting(self, name, operator):
        def run(*args, **kwargs):
            self.called.add(name)
            return operator(*args, **kwargs)

        return run

    def watch(self, total: Tensor, kinds: frozenset[str]) -> None:
        """Note the gradients that nodes of these kinds pass on when ``total`` goes backward.

        Args:
            total: The loss.
            kinds: Names of nodes of autograd, such as 'RoIAlignFunctionBackward'.
        """
        open_nodes, seen = [total.grad_fn], set()
        while open_nodes:
            node = open_nodes.pop()
            if node is None or node in seen:
                continue
            seen.add(node)
            if node.name() in kinds:
                node.register_hook(self._note_of(node.name()))
            open_nodes += [following for following, _ in node.next_functions]

    def _note_of(self, kind):
        def note(to_inputs, from_outputs):
            for index, grad in enumerate(to_inputs):
                if grad is not None:
                    self.finite &= bool(torch.isfinite(grad).all())
                    self.gradients[kind][index] = self.gradients[kind].get(index, False) or bool(grad.any())

        return note
