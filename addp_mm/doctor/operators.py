# Copyright (c) addp_mm contributors. Apache-2.0.
"""``addp doctor --ops``: which of mmcv's operators this installation has, and who provides them."""

from __future__ import annotations

import ast
import importlib
import re
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from addp_mm.compat.versions import INSTALL_MMCV
from addp_mm.errors import UserError

if TYPE_CHECKING:
    import torch

COMPILED, OURS, MISSING = 'compiled', 'addp_mm', '-'
_PASS = re.compile(r'_(forward|backward).*$')  # sync_bn_forward_mean, deform_conv_backward_input
# their gradient is the same function
_OWN_GRADIENT = ('bias_act', 'filtered_lrelu', 'filtered_lrelu_act_', 'fused_bias_leakyrelu', 'upfirdn2d')


@dataclass(frozen=True)
class Operator:
    """An operator of mmcv.

    Attributes:
        name: Its name up to ``_forward`` or ``_backward``.
        module: The module of ``mmcv.ops`` that calls it.
        provider: :data:`COMPILED`, :data:`OURS` or :data:`MISSING`.
        functions: Names in ``mmcv._ext``.
        missing: Those of them that raise an error when they are called.
    """

    name: str
    module: str
    provider: str
    functions: tuple[str, ...]
    missing: tuple[str, ...]

    @property
    def passes(self) -> str:
        """What can be computed: 'forward', 'forward, backward', or '-' for nothing."""
        if self.provider == MISSING:
            return MISSING
        provided = [name for name in self.functions if name not in self.missing]
        has_backward = self.name in _OWN_GRADIENT or any('backward' in name for name in provided)
        return 'forward, backward' if has_backward else 'forward'


def operators() -> list[Operator]:
    """The operators that ``mmcv.ops`` asks for, by name.

    Raises:
        UserError: mmcv is not installed, or its operators do not load.
    """
    spec = find_spec('mmcv')
    if spec is None or not spec.submodule_search_locations:
        raise UserError(f'mmcv is not installed: {INSTALL_MMCV}')
    try:
        extension = importlib.import_module('mmcv._ext')
    except ImportError as error:
        raise UserError(f"mmcv's operators do not load: {error}. addp doctor says why") from error
    found: dict[tuple[str, str], list[str]] = {}
    for path in sorted((Path(spec.submodule_search_locations[0]) / 'ops').glob('*.py')):
        for function in _asked_for(path):
            if not function.startswith('get_compil'):
                found.setdefault((_PASS.sub('', function), path.stem), []).append(function)
    return [_operator(name, module, functions, extension) for (name, module), functions in sorted(found.items())]


def _operator(name: str, module: str, functions: list[str], extension: Any) -> Operator:
    ours = extension.__spec__.origin == 'addp_mm.compat.ops'
    absent = tuple(function for function in functions if function not in vars(extension))
    provider = MISSING if len(absent) == len(functions) else OURS if ours else COMPILED
    return Operator(name, module, provider, tuple(functions), absent)


def _asked_for(path: Path) -> Iterator[str]:
    """Names in the calls ``load_ext('_ext', [names])`` of a file."""
    for node in ast.walk(ast.parse(path.read_text(encoding='utf-8'))):
        if isinstance(node, ast.Call) and len(node.args) > 1:
            called = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, 'id', '')
            if called == 'load_ext':
                yield from ast.literal_eval(node.args[1])


def left_to_the_cpu(device: torch.device) -> list[str]:
    """Operators of addp_mm that are computed on the CPU for tensors on a device; none on the CPU.

    Operators without a kernel there are found by small examples of those that use torchvision's.
    Others show themselves when they are called.
    """
    from addp_mm.compat.ops.fallback import fallen_back
    from addp_mm.devices import is_accelerator

    if not is_accelerator(device):
        return []
    _run_examples(device)
    return sorted({_PASS.sub('', name) for name in fallen_back(device.type)})


def _run_examples(device: torch.device) -> None:
    """Forward and backward passes of the operators that call torchvision."""
    import torch
    from mmcv import ops

    boxes = torch.tensor([[0.0, 0, 3, 3], [1, 1, 4, 4]], device=device)
    rois = torch.cat([torch.zeros_like(boxes[:, :1]), boxes], 1)
    maps = torch.ones(1, 1, 4, 4, device=device, requires_grad=True)
    offsets, weight = maps.new_zeros(1, 18, 4, 4), maps.new_ones(1, 1, 3, 3)
    ops.nms(boxes, boxes[:, 3].contiguous(), 0.5)
    results = [
        ops.roi_align(maps, rois, 2),
        ops.roi_pool(maps, rois, 2),
        ops.deform_conv2d(maps, offsets, weight, 1, 1),
        ops.modulated_deform_conv2d(maps, offsets, torch.ones_like(offsets[:, :9]), weight, None, 1, 1),
    ]
    for result in results:
        result.sum().backward()


def table(found: list[Operator]) -> list[list[str]]:
    """Rows of text: a header, and one row for each operator."""
    rows = [[one.name, one.provider, one.passes, f'mmcv.ops.{one.module}'] for one in found]
    return [['operator', 'provided by', 'passes', 'called by'], *rows]
