# Copyright (c) addp_mm contributors. Apache-2.0.
"""Time several things in turns (A, B, A, B, …), so that changes of the machine affect all."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field

import torch

from addp_mm.analysis.costs import flop_counter
from addp_mm.analysis.peak_memory import added_memory
from addp_mm.benchmark.spans import Spans
from addp_mm.devices import is_accelerator, synchronize

PRECISIONS = {'float32': torch.float32, 'bfloat16': torch.bfloat16, 'float16': torch.float16}
Clock = Callable[[], float]
MATRIX_SIDE, MATRIX_SIDE_ON_ACCELERATOR = 2048, 8192


@dataclass
class Case:
    """Something to time.

    Args:
        name: Its name in the tables.
        run: One step.
        precision: Of its matrix products. Defaults to 'float32'.
        images: Images in a step; 0 if it has none. Defaults to 0.
        spans: Measures the parts of a step. Defaults to None: there are none.
        count: Returns the operations of a step. Defaults to None: they are counted in a step.
        begin: Called before each turn, untimed. Defaults to None.
        end: Called after each turn, untimed. Defaults to None.
    """

    name: str
    run: Callable[[], object]
    precision: str = 'float32'
    images: int = 0
    spans: Spans | None = None
    count: Callable[[], int] | None = None
    begin: Callable[[], object] | None = None
    end: Callable[[], object] | None = None


@dataclass
class Times:
    """What was measured of a case.

    Args:
        case: The case.
        seconds: Of each timed step, by turns.
        parts: Seconds of the parts of each timed step. Defaults to none.
        flops: Operations of a step; None if they were not counted.
        part_flops: Operations of the parts.
        added_bytes: Memory that a step needs above what is in use before it; None if it was not
            measured.
    """

    case: Case
    seconds: list[float] = field(default_factory=list)
    parts: list[dict[str, float]] = field(default_factory=list)
    flops: int | None = None
    part_flops: dict[str, float] = field(default_factory=dict)
    added_bytes: int | None = None

    @property
    def rate(self) -> float | None:
        """Operations a second at the median time."""
        return None if self.flops is None else self.flops / statistics.median(self.seconds)


def autocast(device: torch.device, precision: str) -> AbstractContextManager:
    """Autocast of a precision on a device; nothing for float32."""
    if precision == 'float32':
        return nullcontext()
    return torch.autocast(device.type, PRECISIONS[precision])


def time_in_turns(
    cases: Sequence[Case],
    device: torch.device,
    rounds: int,
    steps: int = 1,
    warmup: int = 0,
    clock: Clock = time.perf_counter,
) -> list[Times]:
    """Time cases that take turns.

    Args:
        cases: The cases.
        device: Device on which they compute.
        rounds: Turns of each case.
        steps: Timed steps in a turn. Defaults to 1.
        warmup: Untimed steps before those of each turn. Defaults to 0.
        clock: Returns seconds. Defaults to the time that passes.
    """
    found = [Times(case) for case in cases]
    for _ in range(rounds):
        for times in found:
            _turn(times, steps, warmup, lambda: _now(device, clock))
    return found


def measure_in_turns(
    cases: Sequence[Case],
    device: torch.device,
    rounds: int,
    warmup: int = 0,
    matrix_side: int | None = None,
    with_memory: bool = True,
    clock: Clock = time.perf_counter,
) -> tuple[list[Times], dict[str, float]]:
    """Time cases that take turns with a large matrix product; count operations; measure memory.

    Every case runs once before, so that optimizers have their states and kernels are chosen.

    Args:
        cases: The cases.
        device: Device on which they compute.
        rounds: Timed steps of each case.
        warmup: Untimed steps before each timed one. Defaults to 0.
        matrix_side: Side of the square matrices. Defaults to None: 2048 on a CPU, 8192 on a GPU.
        with_memory: Whether to measure memory in one more step. Defaults to True.
        clock: Returns seconds. Defaults to the time that passes.

    Returns:
        The measurements, and the operations a second of the matrix product in each precision.
    """
    side = matrix_side or (MATRIX_SIDE_ON_ACCELERATOR if is_accelerator(device) else MATRIX_SIDE)
    products = {name: _product(name, device, side) for name in dict.fromkeys(case.precision for case in cases)}
    counted = []
    for case in (*cases, *products.values()):
        with prepared(case):
            case.run()
            memory = added_memory(case.run, device) if with_memory else None
            counted.append((*_operations(case), memory))
    found = time_in_turns([*cases, *products.values()], device, rounds, warmup=warmup, clock=clock)
    for times, (flops, part_flops, memory) in zip(found, counted, strict=True):
        times.flops, times.part_flops, times.added_bytes = flops, part_flops, memory
    rates = {times.case.precision: times.rate for times in found[len(cases) :]}
    return found[: len(cases)], {name: rate for name, rate in rates.items() if rate is not None}


def _product(precision: str, device: torch.device, side: int) -> Case:
    """A product of two square matrices: what the machine can reach."""
    generator = torch.Generator().manual_seed(0)
    one = torch.rand(side, side, generator=generator).to(device, PRECISIONS[precision])
    return Case('matrix product', lambda: one @ one, precision, count=lambda: 2 * side**3)


def _operations(case: Case) -> tuple[int, dict[str, float]]:
    if case.count is not None:
        return case.count(), {}
    with flop_counter() as counter:
        if case.spans is None:
            case.run()
            return counter.get_total_flops(), {}
        with case.spans.record(counter.get_total_flops) as parts:
            case.run()
    return counter.get_total_flops(), parts


def _turn(times: Times, steps: int, warmup: int, now: Clock) -> None:
    case = times.case
    with prepared(case):
        for index in range(warmup + steps):
            parts: dict[str, float] = {}
            start = now()
            if case.spans is not None and index >= warmup:
                with case.spans.record(now) as parts:
                    case.run()
            else:
                case.run()
            if index >= warmup:
                times.seconds.append(now() - start)
                times.parts += [parts] if parts else []


@contextmanager
def prepared(case: Case) -> Iterator[None]:
    """Call ``begin`` and ``end`` of a case around some of its steps."""
    if case.begin is not None:
        case.begin()
    try:
        yield
    finally:
        if case.end is not None:
            case.end()


def _now(device: torch.device, clock: Clock) -> float:
    """The time when the device has finished everything that it was given."""
    synchronize(device)
    return clock()
