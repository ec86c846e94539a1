# Copyright (c) addp_mm contributors. Apache-2.0.
"""Computations end soon when a visitor stops them or leaves, and the next one works."""

import asyncio
import threading
from types import SimpleNamespace

import pytest
from torch import nn, zeros

gradio = pytest.importorskip('gradio', reason='the extra app is not installed')

from addp_mm.app.computations import Computations, StoppedError, stoppable  # noqa: E402  # it needs gradio

VISITOR = SimpleNamespace(session_hash='visitor')
INPUT = zeros(1, 2)


class Endless:
    """A computation that calls its model until it is stopped."""

    def __init__(self, model):
        self.model, self.started, self.ended = model, threading.Event(), threading.Event()

    def __call__(self, progress):
        try:
            for _ in range(10**9):
                self.model(INPUT)
                self.started.set()
        except StoppedError:
            self.ended.set()
            raise


@pytest.fixture
def model():
    model = nn.Sequential(nn.Linear(2, 2), nn.ReLU())
    with stoppable([model]):
        yield model


async def start(handle, compute):
    task = asyncio.ensure_future(handle(VISITOR, None))
    while not compute.started.is_set():
        await asyncio.sleep(0.001)
    return task


def test_a_cancelled_computation_has_ended_before_the_next_one_starts(model):
    computations, compute = Computations(), Endless(model)

    async def visit():
        task = await start(computations._stoppable(compute), compute)
        task.cancel()
        kept = await task
        assert compute.ended.is_set()
        assert kept == gradio.skip()
        return await computations._stoppable(lambda progress, value: model(value))(VISITOR, None, INPUT)

    assert asyncio.run(visit()).shape == (1, 2)


@pytest.mark.parametrize('leave', [lambda computations: computations.leave(VISITOR), Computations.close])
def test_a_computation_ends_when_its_visitor_leaves_or_the_page_closes(model, leave):
    computations, compute = Computations(), Endless(model)

    async def visit():
        task = await start(computations._stoppable(compute), compute)
        computations.leave(SimpleNamespace(session_hash='another visitor'))
        assert not compute.ended.wait(0.02)
        leave(computations)
        assert await task == gradio.skip()

    asyncio.run(visit())
    assert compute.ended.is_set()


def test_models_are_left_as_they_were():
    model = nn.Linear(2, 2)
    with stoppable([model]):
        assert len(model._forward_pre_hooks) == 1
    assert not model._forward_pre_hooks
