# Copyright (c) addp_mm contributors. Apache-2.0.
"""What processes exchange in a step: sizes against two real processes, times against arithmetic."""

from pathlib import Path

import pytest
import torch
from mmengine.config import Config
from torch import nn

import addp_mm  # noqa: F401  # before the packages: they need its mmcv._ext
from addp_mm.analysis.communication import (
    Exchange,
    Group,
    Links,
    Sharding,
    StepTrace,
    data_parallel,
    sharded,
    step_time,
    trace_step,
)
from addp_mm.analysis.communication.exchange import ALL_GATHER, ALL_REDUCE, REDUCE_SCATTER, Waits
from addp_mm.analysis.communication.others import in_order, of_hooks, sync_norms
from addp_mm.analysis.communication.sharded import padded_bytes, units_of
from addp_mm.analysis.communication.step_trace import BACKWARD, FORWARD, FORWARD_END, GRADIENT, Event
from addp_mm.analysis.communication.strategies import STRATEGIES, Comparison, Layout, exchanges_of
from addp_mm.analysis.communication.two_processes import record_steps
from addp_mm.config.config_file import ConfigError
from addp_mm.engine.runner_cfg import set_amp

NANO = Path(__file__).parents[2] / 'configs/pretrain/addp_vit-nano-p8_2xb16-fp32-4k_fashion-scenes-64px.py'
EIGHT = Group(8, 8)


class Block(nn.Linear):
    pass


def two_blocks() -> nn.Module:
    model = nn.Module()
    model.first, model.second, model.head = Block(3, 5), Block(4, 4), nn.Linear(2, 1)
    model.frozen = Block(7, 7).requires_grad_(False)
    return model


def trace_of(model: nn.Module, events=(), operations: int = 100) -> StepTrace:
    return StepTrace(model, tuple(Event(*event) for event in events), operations, {})


def sizes(exchanges) -> list[tuple[str, int]]:
    return [(exchange.kind, exchange.num_bytes) for exchange in exchanges]


@pytest.mark.slow
def test_two_processes_exchange_exactly_what_is_counted():
    cfg = Config.fromfile(NANO)
    set_amp(cfg, 'bfloat16')  # one that casts the weights needs it
    cfg.optim_wrapper.accumulative_counts = 2
    trace = trace_step(cfg, ('Block',))
    layout = Layout(2, 2, passes=2, images=1)
    for (name, strategy), seen in zip(STRATEGIES.items(), record_steps(cfg, list(STRATEGIES.values())), strict=True):
        found = Comparison(sizes(exchanges_of(cfg, trace, strategy, layout)), seen)
        assert found.is_equal, f'{name}: {found.difference()}'
    trained = sum(parameter.numel() for parameter in trace.model.parameters() if parameter.requires_grad)
    gradients = sum(one.num_bytes for one in data_parallel(trace, Group(2, 2)))
    assert gradients == 4 * trained


def test_buckets_are_those_of_torch():
    model = nn.ModuleList(nn.Linear(700, width) for width in (900, 3000, 10, 9000, 2000, 4000))
    order = [name for name, _ in model.named_parameters()][::-1]
    events = [(GRADIENT, name, index) for index, name in enumerate(order)]
    found = data_parallel(trace_of(model, events), EIGHT, passes=3, images=2)
    parameters = [model.get_parameter(name) for name in order]
    buckets, _ = torch.distributed._compute_bucket_assignment_by_size(parameters, [2**20, 25 * 2**20])
    expected = [sum(4 * parameters[index].numel() for index in bucket) for bucket in buckets]
    assert [one.num_bytes for one in found] == expected
    assert len(expected) > 2
    # A bucket starts with its last gradient in the last pass, here of 2 images.
    assert [one.at for one in found] == [2 * (200 + max(bucket)) for bucket in buckets]


def test_units_are_the_blocks_and_the_rest_without_frozen_parts():
    model = two_blocks()
    units = {name: [one.numel() for one in parameters] for name, parameters in units_of(model, ('Block',)).items()}
    assert units == {'': [2, 1], 'first': [15, 5], 'second': [16, 4]}
    # 15 numbers fill 16 in float32 and in bfloat16; 5 more give 21, and 24 with 8 shards
    assert padded_bytes(model.first.parameters(), 8, torch.float32) == 4 * 24
    assert padded_bytes(model.first.parameters(), 8, torch.bfloat16) == 2 * 24
    assert padded_bytes(model.first.parameters(), 3, torch.float32) == 4 * 21


def test_batch_norms_stay_in_float32_in_mixed_precision():
    model = two_blocks()
    model.norm = nn.BatchNorm2d(8)
    assert list(units_of(model, ('Block',))) == ['', 'first', 'second']
    assert list(units_of(model, ('Block',), norms_alone=True)) == ['', 'first', 'second', 'norm']
    events = [(FORWARD, 'norm', 0), (BACKWARD, 'norm', 50), (GRADIENT, 'norm.weight', 60), (GRADIENT, 'norm.bias', 60)]
    sharding = Sharding.named('SHARD_GRAD_OP', 8, 8, dtype=torch.bfloat16)
    found = sharded(trace_of(model, events), ('Block',), sharding)
    # the head has 8 numbers with its alignment, and one more; 16 with 8 shards
    assert sizes(found) == [(ALL_GATHER, 32), (ALL_GATHER, 64), (REDUCE_SCATTER, 64), (REDUCE_SCATTER, 32)]


BLOCK_EVENTS = [
    (FORWARD, 'first', 0),
    (FORWARD_END, 'first', 20),
    (BACKWARD, 'first', 60),
    (FORWARD, 'first', 60),  # activations are computed again
    (FORWARD_END, 'first', 80),
    (GRADIENT, 'first.weight', 90),
    (GRADIENT, 'first.bias', 95),
]


@pytest.mark.parametrize('strategy, gathers', [('FULL_SHARD', 2), ('SHARD_GRAD_OP', 1), ('HYBRID_SHARD', 2)])
def test_weights_are_gathered_when_they_were_released(strategy, gathers):
    sharding = Sharding.named(strategy, 16, 8, clips=True)
    found = sharded(trace_of(two_blocks(), BLOCK_EVENTS), ('Block',), sharding, passes=2)
    of_first = [one for one in found if one.num_bytes == 4 * (32 if sharding.shards.size == 16 else 24)]
    assert [one.kind for one in of_first] == 2 * [*gathers * [ALL_GATHER], REDUCE_SCATTER]
    assert of_first[-1].at == 195
    assert found[-1].what == 'norm of the gradients'
    across = [one for one in found if one.group == Group(2, 1, at_once=8)]
    assert len(across) == (4 if strategy == 'HYBRID_SHARD' else 0)  # first and root, in two passes
    assert all(one.kind == ALL_REDUCE for one in across)


def test_bytes_that_a_process_sends_in_a_ring():
    assert Exchange(ALL_REDUCE, 800, EIGHT).sent == 1400
    assert Exchange(ALL_GATHER, 800, EIGHT).sent == Exchange(REDUCE_SCATTER, 800, EIGHT).sent == 700
    assert Exchange(ALL_REDUCE, 800, Group(1, 1)).sent == 0


def test_time_is_latency_and_bytes_by_the_slowest_link():
    links = Links(node_rate=100, network_rate=40, node_latency=1, network_latency=3)
    assert links.seconds(Exchange(ALL_GATHER, 800, EIGHT)) == 7 + 700 / 100
    world = Group.of_all(16, 8)
    assert links.seconds(Exchange(ALL_GATHER, 800, world)) == 15 * 3 + 750 / 40
    # up and down: 7 processes on a node, then one other node
    assert links.seconds(Exchange(ALL_REDUCE, 800, world)) == 2 * (7 + 3) + 1500 / 40
    # eight groups share the network
    assert links.seconds(Exchange(ALL_REDUCE, 80, Group(2, 1, at_once=8))) == 2 * 3 + 80 / 5


def test_what_of_a_step_is_hidden():
    links = Links(node_rate=7, network_rate=7, node_latency=0, network_latency=0)

    def exchange(at, waits=Waits.NOT):
        return Exchange(ALL_GATHER, 80, EIGHT, at, waits)  # 10 seconds

    found = step_time([exchange(20), exchange(35)], 50, 1, links)
    assert (found.computing, found.exchanging, found.total) == (50, 20, 50)
    assert found.hidden == 1
    # one at a time: the second starts at 50, when the first is done
    assert step_time([exchange(40), exchange(45)], 50, 1, links).total == 60
    # the second comes while the step computes, from 10 to 30; the last one waits for the end
    gathers = [exchange(0, Waits.PREFETCHED), exchange(20, Waits.PREFETCHED), exchange(40, Waits.AT_ONCE)]
    found = step_time(gathers, 40, 1, links)
    assert (found.total, found.exposed) == (60, 20)
    assert found.hidden == pytest.approx(1 / 3)


def test_synchronised_norms_and_hooks():
    events = [(FORWARD, 'norm', 10), (FORWARD_END, 'norm', 12), (BACKWARD, 'norm', 40)]
    trace = StepTrace(nn.Module(), tuple(Event(*event) for event in events), 50, dict(norm=6))
    norms = sync_norms(trace, EIGHT, passes=2)
    assert sizes(norms) == 2 * [(ALL_GATHER, 8 * 4 * 13), (ALL_REDUCE, 8 * 6)]
    cfg = Config(dict(custom_hooks=[dict(type='addp_mm.TrainingGuardHook'), dict(type='EMAHook')]))
    hooks = of_hooks(cfg, trace, EIGHT, passes=2)
    assert [one.at for one in in_order(norms, hooks)] == [10, 40, 50, 60, 90, 100]


def test_a_traced_step_has_the_norms_that_are_synchronised():
    cfg = Config.fromfile(next(NANO.parents[1].glob('seg/upernet_*nano*from-scratch*.py')))
    cfg.merge_from_dict({'model.decode_head.norm_cfg.type': 'SyncBN'})
    trace = trace_step(cfg, (), (32, 32))
    assert len(trace.sync_norms) > 2
    found = sync_norms(trace, EIGHT)
    assert len(found) == 2 * len(trace.sync_norms)
    assert [one.at for one in found] == sorted(one.at for one in found)
    assert found[-1].at < trace.operations


def test_the_images_of_a_step_are_spread():
    assert Layout.of_step(8, 8, 4096, 64) == Layout(8, 8, 8, 64)
    assert Layout.of_step(1024, 8, 4096, 64) == Layout(1024, 8, 1, 4)
    assert Layout.of_step(64, 8, 16, 2).images == 1
    with pytest.raises(ConfigError, match='--processes 12: give a multiple of --per-node'):
        Layout.of_step(12, 8, 64, 2)


def test_a_difference_is_found_and_named():
    found = Comparison([(ALL_REDUCE, 8), (ALL_GATHER, 4)], [(ALL_REDUCE, 8), (ALL_REDUCE, 8)])
    assert not found.is_equal
    assert found.difference() == 'not counted: 1 x all-reduce of 8 bytes; not seen: 1 x all-gather of 4 bytes'
