# Copyright (c) addp_mm contributors. Apache-2.0.
"""Cases that take turns: their order, counted operations, memory, and the tables."""

import types

import pytest
import torch

from addp_mm.analysis.peak_memory import added_memory
from addp_mm.benchmark import paired_times
from addp_mm.benchmark.paired_times import Case, Times, measure_in_turns, time_in_turns
from addp_mm.benchmark.quartiles import quartiles
from addp_mm.benchmark.spans import Spans
from addp_mm.benchmark.times_report import HEADER, case_rows, part_rows, record, speeds_against
from addp_mm.report.markdown import markdown_table

CPU = torch.device('cpu')


def test_cases_take_turns_with_untimed_steps_before_the_timed_ones():
    calls = []
    cases = [
        Case(name, lambda name=name: calls.append(name), begin=lambda name=name: calls.append(f'begin {name}'))
        for name in 'ab'
    ]
    cases[1].end = lambda: calls.append('end b')
    found = time_in_turns(cases, CPU, rounds=2, steps=2, warmup=1)
    assert calls == ['begin a', 'a', 'a', 'a', 'begin b', 'b', 'b', 'b', 'end b'] * 2
    assert [len(times.seconds) for times in found] == [4, 4]


def test_operations_are_counted_whole_and_by_part():
    weight = torch.ones(4, 8, requires_grad=True)
    owner = types.SimpleNamespace(project=lambda x: x @ weight)
    spans = Spans()
    spans.wrap(owner, 'project', 'projection')
    found, rates = measure_in_turns(
        [Case('step', lambda: owner.project(torch.ones(2, 4)).sum().backward(), spans=spans)],
        CPU,
        rounds=2,
        matrix_side=8,
        with_memory=False,
    )
    (times,) = found
    forward = 2 * 2 * 4 * 8
    assert times.flops == 2 * forward  # the input needs no gradient
    assert times.part_flops == {'projection': forward, 'other': forward}
    assert len(times.seconds) == len(times.parts) == 2
    assert all(sum(parts.values()) <= seconds for parts, seconds in zip(times.parts, times.seconds, strict=True))
    assert set(rates) == {'float32'}
    assert rates['float32'] > 0


def test_a_matrix_product_is_measured_in_each_precision(monkeypatch):
    products = []
    original = paired_times._product
    monkeypatch.setattr(paired_times, '_product', lambda *args: products.append(args[0]) or original(*args))
    cases = [Case('a', int), Case('b', int, 'bfloat16'), Case('c', int)]
    _, rates = measure_in_turns(cases, CPU, rounds=1, matrix_side=8, with_memory=False)
    assert products == list(rates) == ['float32', 'bfloat16']


def test_the_memory_of_a_step_is_that_above_what_is_in_use():
    held = torch.zeros(2**23)  # 32 MiB in use before
    added = added_memory(lambda: torch.ones(2**24).sum(), CPU)  # 64 MiB
    assert added is None or 0.8 * 2**26 < added < 1.5 * 2**26
    assert held.sum() == 0


def times_of(name, seconds, **measured):
    return Times(Case(name, int, images=measured.pop('images', 0)), seconds, **measured)


def test_rows_compare_each_turn_with_the_first_case():
    slow = times_of('slow', [2.0, 4.0, 8.0], flops=10**9)
    fast = times_of('fast', [1.0, 1.0, 1.0], flops=10**9, added_bytes=3 * 2**20, images=4)
    assert speeds_against(slow, fast) == [2, 4, 8]
    rows = case_rows([slow, fast], {'float32': 2e9})
    assert len(HEADER) == len(rows[0])
    assert rows[0] == ['slow', 'float32', '4000 (3000 to 6000)', '1.00 (1.00 to 1.00)', '–', '1', '12.5', '–']
    assert rows[1] == ['fast', 'float32', '1000 (1000 to 1000)', '4.00 (3.00 to 6.00)', '4', '1', '50.0', '3']
    text = markdown_table(HEADER, rows)
    assert [line.count('|') for line in text.splitlines()] == [len(HEADER) + 1] * 4


def test_rows_of_parts_have_the_share_of_the_step():
    whole = times_of('whole', [2.0, 2.0], parts=[dict(a=0.5, b=1.5), dict(a=0.5, b=1.5)], part_flops=dict(b=2e9))
    other = times_of('other', [1.0, 1.0], parts=[dict(a=1.0), dict(a=1.0)])
    header, rows = part_rows([whole, times_of('no parts', [1.0]), other])
    assert [title.partition(':')[0] for title in header] == ['component', 'whole', 'other']
    assert rows == [['a', '500 (25%), –', '1000 (100%), –'], ['b', '1500 (75%), 2', '–']]
    assert record(whole)['parts'] == whole.parts


@pytest.mark.parametrize('values, wanted', [([3.0], (3, 3, 3)), ([1.0, 2.0, 3.0, 4.0, 5.0], (2, 3, 4))])
def test_quartiles(values, wanted):
    assert quartiles(values) == wanted
