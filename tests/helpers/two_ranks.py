# Copyright (c) addp_mm contributors. Apache-2.0.
"""Run by two processes: the comparisons of pre-training."""

import math
from pathlib import Path

import torch
from mmengine import dist
from torch import nn

from addp_mm.engine.hooks.failures import non_finite_weight
from addp_mm.engine.hooks.frozen_components import check_equal_on_all_ranks


def part(value: float) -> nn.Module:
    module = nn.Linear(2, 2)
    nn.init.constant_(module.weight, value)
    nn.init.zeros_(module.bias)
    return module


def outcome(call) -> str:
    try:
        call()
    except RuntimeError as error:
        return str(error)
    return 'passed'


def job(_: Path, world_size: int) -> dict:
    torch.distributed.init_process_group('gloo')
    rank = dist.get_rank()
    return dict(
        equal=outcome(lambda: check_equal_on_all_ranks(dict(tokenizer=part(1.0), predictor=part(2.0)))),
        different=outcome(lambda: check_equal_on_all_ranks(dict(tokenizer=part(1.0), predictor=part(2.0 + rank)))),
        non_finite=non_finite_weight(part(math.inf if rank else 1.0)),
    )
