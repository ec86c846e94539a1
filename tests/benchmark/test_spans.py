# Copyright (c) addp_mm contributors. Apache-2.0.
"""Parts of a call, with a clock that the test moves."""

import types

import pytest

from addp_mm.benchmark.spans import Spans


class Model:
    """Two parts, one inside the other."""

    def __init__(self, clock):
        self.clock = clock

    def outer(self, word):
        self.clock.now += 3
        inner = self.inner()
        self.clock.now += 4
        return word + inner

    def inner(self):
        self.clock.now += 10
        return '!'


@pytest.fixture
def clock():
    return types.SimpleNamespace(now=100)


def test_nested_parts_are_not_counted_twice(clock):
    model, spans = Model(clock), Spans()
    spans.wrap(model, 'outer', 'outer part')
    spans.wrap(model, 'inner', 'inner part')
    with spans.record(lambda: clock.now) as parts:
        clock.now += 1
        assert model.outer('a') == 'a!'
        assert model.inner() == '!'
        clock.now += 2
    assert parts == {'other': 3, 'outer part': 7, 'inner part': 20}


def test_nothing_is_recorded_outside_of_a_record(clock):
    model, spans = Model(clock), Spans()
    spans.wrap(model, 'inner', 'inner part')
    with spans.record(lambda: clock.now) as parts:
        pass
    assert model.outer('b') == 'b!'
    assert parts == {'other': 0}


def test_an_error_inside_a_part_leaves_the_spans_usable(clock):
    spans, owner = Spans(), types.SimpleNamespace(fail=lambda: 1 / 0, work=lambda: None)
    spans.wrap(owner, 'fail', 'failing')
    spans.wrap(owner, 'work', 'work')
    with pytest.raises(ZeroDivisionError), spans.record(lambda: clock.now):
        owner.fail()
    with spans.record(lambda: clock.now) as parts:
        owner.work()
    assert parts == {'other': 0, 'work': 0}


def test_unwrap_puts_methods_and_functions_back(clock):
    model, module, spans = Model(clock), types.ModuleType('module'), Spans()
    module.function = original = lambda: 5
    spans.wrap(model, 'inner', 'inner part')
    spans.wrap(module, 'function', 'function')
    spans.wrap(module, 'function', 'the same again')
    assert module.function() == 5
    assert module.function is not original
    spans.unwrap()
    assert module.function is original
    assert 'inner' not in vars(model)


def test_a_part_that_does_not_exist_is_an_error(clock):
    with pytest.raises(AttributeError, match='encode'):
        Spans().wrap(Model(clock), 'encode', 'encode')
