# Copyright (c) addp_mm contributors. Apache-2.0.
"""Tables and records of what was timed in turns."""

from __future__ import annotations

import os
import statistics
from collections.abc import Mapping, Sequence
from typing import Any

import torch

from addp_mm.benchmark.paired_times import Times
from addp_mm.benchmark.quartiles import quartiles
from addp_mm.report.machine import cores, machine_class, versions

NONE = '–'
HEADER = (
    'case',
    'precision',
    'ms a step (quartiles)',
    'speed against the first (quartiles)',
    'images/s',
    'GFLOPs',
    '% of the matrix rate',
    'added memory, MiB',
)
EXPLANATION = (
    'Median time of a step; the cases take turns. Speed against the first: its time divided by that of the case, in '
    'each turn. Matrix rate: operations a second of a large matrix product in the same precision, threads and turns. '
    'Added memory: the peak of a step, above what is in use before it.'
)


def about_run(device: torch.device, rates: Mapping[str, float]) -> dict[str, Any]:
    """The machine, and what may disturb a measurement on it.

    Args:
        device: Device of the measurement.
        rates: Operations a second of the matrix product, by precision.
    """
    return dict(
        device=str(device),
        machine=machine_class(),
        threads=torch.get_num_threads(),
        load=os.getloadavg()[0] if hasattr(os, 'getloadavg') else None,
        versions=versions(),
        matrix_rate=dict(rates),
    )


def about_lines(about: Mapping[str, Any]) -> list[str]:
    """:func:`about_run` as lines of text."""
    rates = ', '.join(f'{rate / 1e9:.1f} GFLOPS in {name}' for name, rate in about['matrix_rate'].items())
    lines = [f'{about["device"]}: {about["machine"]}, {about["threads"]} threads; torch {about["versions"]["torch"]}']
    lines += [f'matrix product: {rates}'] if rates else []
    load = about['load']
    if load is not None and load > cores() + 0.5:
        lines.append(f'The machine is busy (load {load:.1f} on {cores()} cores): measure again when it is quiet.')
    return lines


def case_rows(found: Sequence[Times], rates: Mapping[str, float]) -> list[list[str]]:
    """A row of :data:`HEADER` for each case."""
    rows = []
    for times in found:
        low, median, high = quartiles([1e3 * one for one in times.seconds])
        slower, ratio, faster = quartiles(speeds_against(found[0], times))
        case, rate = times.case, times.rate
        share = rate / rates[case.precision] if rate and case.precision in rates else None
        rows.append(
            [
                case.name,
                case.precision,
                f'{median:.4g} ({low:.4g} to {high:.4g})',
                f'{ratio:.2f} ({slower:.2f} to {faster:.2f})',
                f'{1e3 * case.images / median:.4g}' if case.images else NONE,
                NONE if not times.flops else f'{times.flops / 1e9:.4g}',
                NONE if not share else f'{100 * share:.1f}',
                NONE if times.added_bytes is None else f'{times.added_bytes / 2**20:.0f}',
            ]
        )
    return rows


def speeds_against(first: Times, times: Times) -> list[float]:
    """How many times faster a case is than the first one, in each step."""
    return [one / other for one, other in zip(first.seconds, times.seconds, strict=True)]


def part_rows(found: Sequence[Times]) -> tuple[list[str], list[list[str]]]:
    """Header and rows of the parts of the cases; no rows if no case has parts."""
    found = [times for times in found if times.parts]
    names = list(dict.fromkeys(name for times in found for parts in times.parts for name in parts))
    header = ['component', *(f'{times.case.name}: ms (share), GFLOPs' for times in found)]
    return header, [[name, *(_part(times, name) for times in found)] for name in names]


def _part(times: Times, name: str) -> str:
    seconds = [parts.get(name) for parts in times.parts]
    known = [one for one in seconds if one is not None]
    if not known:
        return NONE
    median = statistics.median(known)
    flops = times.part_flops.get(name)
    counted = NONE if not flops else f'{flops / 1e9:.4g}'
    return f'{1e3 * median:.4g} ({median / statistics.median(times.seconds):.0%}), {counted}'


def record(times: Times) -> dict[str, Any]:
    """Everything that was measured of a case, for a JSON file."""
    case = times.case
    return dict(
        case=case.name,
        precision=case.precision,
        images=case.images,
        seconds=times.seconds,
        flops=times.flops,
        added_bytes=times.added_bytes,
        parts=times.parts,
        part_flops=times.part_flops,
    )
