# Copyright (c) addp_mm contributors. Apache-2.0.
"""Exchanges of a training step besides weights and gradients."""

from __future__ import annotations

from mmengine.config import Config

from addp_mm.analysis.communication.exchange import ALL_GATHER, ALL_REDUCE, Exchange, Group, Waits
from addp_mm.analysis.communication.step_trace import BACKWARD, FORWARD, StepTrace
from addp_mm.config.type_names import type_name

# Hooks that exchange something after each backward pass.
HOOKS = ('TrainingGuardHook',)
_FLAGS = 8  # bytes that say whether the loss and the gradients are finite
_MEANS = 16  # of the loss, and of the value that it is compared with, for these models
_COMPARED = ('ADDP', 'PredictorPretrain', 'TokenizerPretrain', 'VQGANPretrain')


def sync_norms(trace: StepTrace, group: Group, passes: int = 1, images: float = 1) -> list[Exchange]:
    """Exchanges of synchronised batch norms.

    Each gathers means, deviations and a count in its forward pass, and sums two gradients of each
    channel in its backward pass, in float32. The computation waits for both.

    Args:
        trace: The step, of one image.
        group: The processes.
        passes: Forward and backward passes of a step. Defaults to 1.
        images: Images of a pass in each process. Defaults to 1.
    """
    found = []
    for number in range(passes):
        for event in trace.events:
            if event.name not in trace.sync_norms or event.kind not in (FORWARD, BACKWARD):
                continue
            channels, at = trace.sync_norms[event.name], (number * trace.operations + event.at) * images
            kind, size = (ALL_REDUCE, 8 * channels)
            if event.kind == FORWARD:
                kind, size = ALL_GATHER, group.size * 4 * (2 * channels + 1)
            found.append(Exchange(kind, size, group, at, Waits.AT_ONCE, 'synchronised batch norm'))
    return found


def hooks_of(cfg: Config) -> list[dict]:
    """Configs of the hooks that exchange something after each pass."""
    hooks = [*(cfg.get('custom_hooks') or []), *(cfg.get('default_hooks') or {}).values()]
    return [hook for hook in hooks if isinstance(hook, dict) and type_name(hook.get('type')) in HOOKS]


def of_hooks(cfg: Config, trace: StepTrace, group: Group, passes: int = 1, images: float = 1) -> list[Exchange]:
    """Exchanges of the hooks of a config; see :func:`sync_norms` for the arguments."""
    model = type_name((cfg.get('model') or {}).get('type'))
    sizes = (_FLAGS, _MEANS) if model in _COMPARED else (_FLAGS,)
    return [
        Exchange(ALL_REDUCE, size, group, number * trace.operations * images, Waits.AT_ONCE, type_name(hook['type']))
        for number in range(1, passes + 1)
        for hook in hooks_of(cfg)
        for size in sizes
    ]


def in_order(*exchanges: list[Exchange]) -> list[Exchange]:
    """Several lists as one, in the order in which a process reaches the exchanges."""
    return sorted((exchange for part in exchanges for exchange in part), key=lambda exchange: exchange.at)
