# Copyright (c) addp_mm contributors. Apache-2.0.
"""Cases that run as without addp_mm."""

import pytest
import torch

from addp_mm.benchmark.paired_times import Case, time_in_turns
from addp_mm.benchmark.without_patches import without_patches
from addp_mm.compat import matrix_products
from addp_mm.engine import cpu_memory


def test_only_the_turns_of_others_are_without_patches(monkeypatch):
    settings = []
    monkeypatch.setattr(cpu_memory, '_set', lambda options: settings.append(options) or True)
    monkeypatch.setattr(cpu_memory, '_is_kept', True)
    seen = []

    def note():
        seen.append((matrix_products._active, settings[-1] if settings else None))

    time_in_turns([without_patches(Case('theirs', note)), Case('ours', note)], torch.device('cpu'), rounds=2)
    assert seen == [(False, cpu_memory._USUAL), (True, cpu_memory._KEEP)] * 2


def test_patches_come_back_after_an_error():
    def fail():
        raise RuntimeError('out of memory')

    with pytest.raises(RuntimeError, match='out of memory'):
        time_in_turns([without_patches(Case('theirs', fail))], torch.device('cpu'), rounds=1)
    assert matrix_products._active
