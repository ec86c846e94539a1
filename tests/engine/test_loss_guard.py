# Copyright (c) addp_mm contributors. Apache-2.0.
import math

import pytest

from addp_mm.engine.guards import LossGuard


def test_a_rise_of_the_running_mean_fails_and_a_single_peak_does_not():
    guard = LossGuard(max_rise=1.0, window=4)
    assert all(guard.check(loss) is None for loss in (5.0, 4.0, 4.0, 4.0, 4.0, 7.0, 4.0, 4.0, 4.0))
    assert guard.lowest == 4.0
    verdicts = [guard.check(loss) for loss in (5.5, 5.5, 5.5)]
    assert verdicts[:2] == [None, None]
    assert 'lowest value 4' in verdicts[2]
    assert '5.125' in verdicts[2]


def test_a_mean_below_the_floor_fails():
    guard = LossGuard(floor=0.5, window=2)
    assert guard.check(0.0) is None
    assert guard.check(1.1) is None
    assert 'floor 0.5' in guard.check(-0.2)


def test_checks_can_be_switched_off():
    guard = LossGuard(floor=-math.inf, max_rise=math.inf, window=1)
    assert [guard.check(loss) for loss in (1.0, 100.0, -5.0)] == [None] * 3


def test_state_continues_where_it_stopped():
    losses = [3.0, 2.0, 2.5, 2.0, 3.5, 3.9]
    whole, first, second = (LossGuard(max_rise=1.0, window=2) for _ in range(3))
    verdicts = [whole.check(loss) for loss in losses]
    parts = [first.check(loss) for loss in losses[:3]]
    second.load(first.state())
    parts += [second.check(loss) for loss in losses[3:]]
    assert parts == verdicts
    assert verdicts[-1] is not None


@pytest.mark.parametrize('options', [dict(window=0), dict(max_rise=0.0)])
def test_bad_options_are_refused(options):
    with pytest.raises(ValueError, match='positive'):
        LossGuard(**options)
