# Copyright (c) addp_mm contributors. Apache-2.0.
"""What the tools that time cases in turns have in common: measure, print, write."""

from __future__ import annotations

import time
from argparse import Namespace
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch

from addp_mm.benchmark.paired_times import Case, measure_in_turns
from addp_mm.benchmark.times_report import EXPLANATION, HEADER, about_lines, about_run, case_rows, part_rows, record
from addp_mm.checkpoints.atomic_write import write_json
from addp_mm.config.paths import require_writable
from addp_mm.engine.device import choose_device
from addp_mm.report.markdown import markdown_table


@dataclass(frozen=True)
class Group:
    """Cases that are compared with each other.

    Args:
        title: What they do.
        cases: The cases; the first is the one that the others are compared with.
        notes: Written to ``--out``, too. Defaults to nothing.
    """

    title: str
    cases: Sequence[Case]
    notes: Mapping[str, Any] = field(default_factory=dict)


def prepare(args: Namespace) -> None:
    """Check ``--out``, choose ``args.device`` and seed torch.

    Args:
        args: Of a parser with :func:`~addp_mm.cli_options.add_timing_options`.

    Raises:
        ConfigError: The file cannot be written, or there is no such device.
    """
    if args.out is not None:
        require_writable(args.out, '--out')
    args.device = choose_device(args.device)
    torch.manual_seed(args.seed)


def measure_groups(
    title: str,
    groups: Iterable[Group],
    args: Namespace,
    with_memory: bool = True,
    clock: Callable[[], float] = time.perf_counter,
) -> dict[str, Any]:
    """Measure groups one after the other; print their tables, and write them to ``--out``.

    Args:
        title: Title of the whole.
        groups: The groups. A generator builds each when its turn comes, so that models do not have
            to be in memory together.
        args: Prepared by :func:`prepare`.
        with_memory: Whether the memory of a step is measured. Defaults to True.
        clock: Returns seconds. Defaults to the time that passes.

    Returns:
        What is written: ``title``, ``explanation``, and for each group its ``title``, the machine,
        ``tables``, the measured ``cases`` and ``notes``.
    """
    records: dict[str, Any] = dict(title=title, explanation=EXPLANATION, groups=[])
    print(EXPLANATION)
    for group in groups:
        found, rates = measure_in_turns(
            group.cases, args.device, args.rounds, args.warmup, args.matrix_side, with_memory, clock
        )
        about = about_run(args.device, rates)
        tables: list[dict[str, Any]] = [dict(header=list(HEADER), rows=case_rows(found, rates))]
        header, rows = part_rows(found)
        tables += [dict(header=header, rows=rows)] if rows else []
        print('\n'.join(['', group.title, *about_lines(about)]))
        for table in tables:
            print('\n' + markdown_table(table['header'], table['rows'], numbers=True), end='', flush=True)
        cases = [record(times) for times in found]
        records['groups'].append(
            dict(title=group.title, about=about, tables=tables, cases=cases, notes=dict(group.notes))
        )
        if args.out is not None:
            write_json(args.out, records)
    return records
