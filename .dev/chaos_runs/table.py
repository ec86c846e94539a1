# Copyright (c) addp_mm contributors. Apache-2.0.
"""The result of the chaos as Markdown."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from chaos_runs.kinds import KINDS


def kills_table(chains: Sequence[dict]) -> str:
    """A row for each kind of training: how often it was ended, and what was lost or different."""
    rows = [
        '| training | with | runs | ended | SIGKILL, SIGTERM, SIGINT, SIGUSR1 | near a write of a checkpoint | lost '
        '| different |',
        '|---|---|---|---|---|---|---|---|',
    ]
    for kind in [*KINDS, None]:
        own = [chain for chain in chains if kind is None or chain['kind'] == kind.name]
        ends = [end for chain in own for end in chain['ends']]
        count = Counter(end[0] for end in ends)
        signals = ', '.join(str(count[name]) for name in ('SIGKILL', 'SIGTERM', 'SIGINT', 'SIGUSR1'))
        lost, different = (sum(bool(chain[key]) for chain in own) for key in ('lost', 'different'))
        name, has = (kind.name, kind.has) if kind else ('all', '')
        if own:
            near = sum(end[1] == 'write' for end in ends)
            rows.append(f'| {name} | {has} | {len(own)} | {len(ends)} | {signals} | {near} | {lost} | {different} |')
    return '\n'.join(rows)


def faults_table(trials: Sequence[dict]) -> str:
    """A row for each fault."""
    rows = ['| fault | trainings | runs | lost | different |', '|---|---|---|---|---|']
    for fault in dict.fromkeys(trial['fault'] for trial in trials):
        own = [trial for trial in trials if trial['fault'] == fault]
        kinds = ', '.join(trial['kind'] for trial in own)
        lost, different = (sum(bool(trial[key]) for trial in own) for key in ('lost', 'different'))
        rows.append(f'| {fault} | {kinds} | {len(own)} | {lost} | {different} |')
    return '\n'.join(rows)
