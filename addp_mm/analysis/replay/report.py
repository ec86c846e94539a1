# Copyright (c) addp_mm contributors. Apache-2.0.
"""What the replay of a failed iteration shows, as text."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any

from torch import Tensor

from addp_mm.analysis.replay.module_values import Value, first_non_finite, largest
from addp_mm.analysis.replay.replayed import Pass
from addp_mm.engine.guards.plain_data import batch_size, sample_of
from addp_mm.errors import first_few

Row = tuple[str, ...]


def head(event: Mapping[str, Any]) -> Iterator[str]:
    """What the event says: the failure, non-finite weights, and samples with non-finite inputs."""
    yield f'iteration {event["iteration"]}, rank {event["rank"]}: {event["reason"]}'
    size = batch_size(event['batch'])
    bad = [event['names'][i] for i in range(size) if not _is_finite(sample_of(event['batch'], i, size))]
    yield f'batch: {size} samples; ' + (f'inputs with NaN or Inf: {first_few(bad)}' if bad else 'all inputs are finite')
    weights = [name for name, value in (event['weights'] or {}).items() if not _is_finite(value)]
    if event['weights'] is not None:
        yield 'weights: ' + (f'NaN or Inf in {first_few(weights)}' if weights else 'all are finite')
    if event['seed'] is None:
        yield 'the training did not seed its iterations: dropout and masks are others in this replay'


def table(event: Mapping[str, Any], passes: Mapping[str, Pass]) -> list[Row]:
    """Rows that compare passes of the whole batch.

    Args:
        event: The event, whose logged values are the first column.
        passes: Passes by their precision.
    """
    names = dict.fromkeys([*event['outputs'], *(name for one in passes.values() for name in one.outputs)])
    outputs = [event['outputs'], *(one.outputs for one in passes.values())]
    rows: list[Row] = [('', 'in the training', *passes)]
    rows += [(name, *(_number(values.get(name)) for values in outputs)) for name in names]
    for title, choose in _VALUES.items():
        rows.append((title, '', *(_text(choose(one)) for one in passes.values())))
    components = dict.fromkeys(name for one in passes.values() for name in one.norms)
    rows += [
        (f'gradient norm of {name}', '', *(_number(one.norms.get(name)) for one in passes.values()))
        for name in components
    ]
    if any(one.error for one in passes.values()):
        rows.append(('error', '', *(one.error or '-' for one in passes.values())))
    return rows


def sample_rows(names: list[str], passes: list[Pass]) -> list[Row]:
    """A row for each sample that was run alone: loss, norm of all gradients, first bad module."""
    rows: list[Row] = [('sample alone', 'loss', 'gradient norm', 'first non-finite output')]
    for name, one in zip(names, passes, strict=True):
        norm = math.hypot(*one.norms.values()) if one.norms else None
        bad = one.error or _text(first_non_finite(one.values.outputs))
        rows.append((name, _number(one.outputs.get('loss')), _number(norm), bad))
    return rows


def caused_by(passes: list[Pass]) -> list[int]:
    """Numbers of the samples that are non-finite alone."""
    found = []
    for number, one in enumerate(passes):
        values = [*one.outputs.values(), *one.norms.values()]
        if not all(map(math.isfinite, values)) or first_non_finite(one.values.outputs):
            found.append(number)
    return found


_VALUES = {
    'first non-finite output': lambda one: first_non_finite(one.values.outputs),
    'largest finite output': lambda one: largest(one.values.outputs),
    'first non-finite gradient': lambda one: first_non_finite(one.values.gradients),
    'largest finite gradient': lambda one: largest(one.values.gradients),
}


def _number(value: float | None) -> str:
    return '-' if value is None else f'{value:.6g}'


def _text(value: Value | None) -> str:
    return 'none' if value is None else str(value)


def _is_finite(value: Any) -> bool:
    if isinstance(value, Tensor):
        return not value.is_floating_point() or bool(value.isfinite().all())
    parts = value.values() if isinstance(value, Mapping) else value if isinstance(value, (list, tuple)) else ()
    return all(map(_is_finite, parts))
