# Copyright (c) addp_mm contributors. Apache-2.0.
"""What torch.compile compiled."""

import torch

from addp_mm.benchmark.compilations import recorded_compilations


@torch.compiler.disable
def uncompiled(x):
    return x + 1


def branch(x, flag):
    return x * 2 if flag else uncompiled(x * 3) - 1


def test_graphs_breaks_and_recompilations_are_counted_with_their_reasons():
    compiled = torch.compile(branch, backend='eager')
    with recorded_compilations() as compilations:
        for _ in range(2):
            assert compiled(torch.ones(2), True).tolist() == [2, 2]
        first = compilations.counts
        assert (first.graphs, first.recompilations) == (1, 0)
        assert not compilations.graph_breaks
        for _ in range(2):
            assert compiled(torch.ones(2), False).tolist() == [3, 3]
        assert compilations.counts.since(first) == (2, 1)  # before and after the call that is not compiled
        (reason,) = compilations.reasons
        assert reason.startswith('branch (')
        assert 'flag' in reason
        assert [name for name in compilations.graph_breaks if 'uncompiled' in name]


def test_a_new_record_starts_without_compiled_code(capfd):
    compiled = torch.compile(branch, backend='eager')
    for _ in range(2):
        with recorded_compilations() as compilations:
            compiled(torch.ones(2), True)
            compiled(torch.ones(3), True)
            assert compilations.counts == (2, 1)
    assert 'Recompiling' not in ''.join(capfd.readouterr())
