# Copyright (c) addp_mm contributors. Apache-2.0.
"""Compare mmcv's operators by addp_mm with other implementations: results and times."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from statistics import median
from types import ModuleType
from typing import Any

import torch
from torch import Tensor

from addp_mm.benchmark.operators.measured import Call, Inputs, Operator
from addp_mm.benchmark.paired_times import Case, prepared
from addp_mm.benchmark.quartiles import quartiles
from addp_mm.benchmark.timed_tool import Group
from addp_mm.benchmark.times_report import NONE
from addp_mm.compat.extension_choice import calling, compiled_extension, own_extension
from addp_mm.errors import ConfigError, UserError

TOLERANCE = 1e-3
REFERENCE, COMPILED = 'reference', 'compiled'
HEADER = ('operator', 'sizes', 'against', 'theirs, ms', 'ours, ms', 'ours / theirs (quartiles)', 'largest difference')
EXPLANATION = (
    'Ours / theirs: the median of the ratios of all turns. Largest difference: of all results, outputs and gradients, '
    'each as a share of its largest value.'
)
_COMPILED_NAME = 'compiled mmcv'


class DifferentResultsError(UserError):
    """Two implementations of an operator disagree."""


def require_compiled() -> ModuleType:
    """The compiled operators of the installed mmcv.

    Raises:
        ConfigError: It has none.
    """
    extension = compiled_extension()
    if extension is None:
        raise ConfigError(
            '--against compiled: the installed mmcv has no compiled operators. Install one in an environment of its '
            'own, with the same torch: MMCV_WITH_OPS=1 pip install --no-build-isolation --no-binary mmcv mmcv==2.1.0 '
            '(it needs a C++ compiler and half an hour)'
        )
    return extension


def operator_groups(
    operators: Sequence[Operator], make_inputs: Callable[[], Inputs], against: Sequence[str]
) -> Iterator[Group]:
    """A group of cases for each operator: the others first, then ours.

    Args:
        operators: The operators.
        make_inputs: Makes the inputs of an operator.
        against: :data:`REFERENCE`, :data:`COMPILED` or both.

    Raises:
        ConfigError: :data:`COMPILED` without compiled operators.
        DifferentResultsError: The results differ by more than :data:`TOLERANCE`.
    """
    ours, compiled = own_extension(), require_compiled() if COMPILED in against else None
    for operator in operators:
        own, reference = operator.build(make_inputs())
        mine = _case('addp_mm', own, ours)
        others = []
        if REFERENCE in against and reference is not None:
            others.append(Case(str(operator.reference), reference, count=_none))
        if compiled is not None:
            others.append(_case(_COMPILED_NAME, own, compiled))
        found = differences(operator.name, mine, others)
        cases = [*(case for case in others if case.name in found), mine]
        notes = dict(operator=operator.name, sizes=operator.sizes, differences=found)
        yield Group(f'{operator.name}: {operator.sizes}', cases, notes)


def _none() -> int:
    """No operations: of these operators, torch counts the convolutions only."""
    return 0


def _case(name: str, call: Call, extension: ModuleType) -> Case:
    """A call of functions of ``mmcv.ops`` on one extension."""
    stack = ExitStack()
    return Case(name, call, count=_none, begin=lambda: stack.enter_context(calling(extension)), end=stack.close)


def differences(name: str, ours: Case, others: Sequence[Case]) -> dict[str, float]:
    """The largest difference of our results and those of each other case that has a kernel.

    Args:
        name: Of the operator.
        ours: Our case.
        others: The other cases. A compiled mmcv has no kernels of some operators for some devices.

    Returns:
        Differences by the names of the cases, each as a share of the largest value of its tensor.

    Raises:
        DifferentResultsError: One is larger than :data:`TOLERANCE`, or shapes differ.
    """
    mine, found = _results(ours), {}
    for other in others:
        try:
            theirs = _results(other)
        except RuntimeError as error:
            if 'implementation for device' not in str(error):
                raise
            continue
        agree = [a.shape for a in mine] == [b.shape for b in theirs]
        apart = max(map(_share, mine, theirs), default=0.0) if agree else float('inf')
        if not apart <= TOLERANCE:
            raise DifferentResultsError(f'{name}: the results of addp_mm and of {other.name} differ by {apart:.2g}')
        found[other.name] = apart
    return found


def _results(case: Case) -> list[Tensor]:
    with prepared(case):
        found: Any = case.run()
    return found if isinstance(found, list) else [found]


def _share(one: Tensor, two: Tensor) -> float:
    if one.numel() == 0:
        return 0.0
    if not two.is_floating_point():
        return float(not torch.equal(one, two))
    return float((one - two).abs().max()) / max(float(two.abs().max()), torch.finfo(torch.float32).tiny)


def rows(records: Mapping[str, Any]) -> list[list[str]]:
    """Rows of :data:`HEADER`: one for each operator and each implementation to compare with.

    Args:
        records: What :func:`~addp_mm.benchmark.timed_tool.measure_groups` returns.
    """
    return [
        [f'`{group["notes"]["operator"]}`', group['notes']['sizes'], *_row(group, other)]
        for group in records['groups']
        for other in group['cases'][:-1] or [None]
    ]


def _row(group: Mapping[str, Any], other: Mapping[str, Any] | None) -> list[str]:
    ours = group['cases'][-1]
    milliseconds = f'{1e3 * median(ours["seconds"]):.3g}'
    if other is None:
        return [NONE, NONE, milliseconds, NONE, NONE]
    low, ratio, high = quartiles([a / b for a, b in zip(ours['seconds'], other['seconds'], strict=True)])
    apart = group['notes']['differences'][other['case']]
    return [
        other['case'],
        f'{1e3 * median(other["seconds"]):.3g}',
        milliseconds,
        f'{ratio:.2f} ({low:.2f} to {high:.2f})',
        f'{apart:.1e}' if apart else '0',
    ]
