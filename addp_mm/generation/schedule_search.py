# Copyright (c) addp_mm contributors. Apache-2.0.
"""The schedules that a search tries, and the options of ``addp generate`` for them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

from addp_mm.generation.sampling_schedule import ORDERS, SamplingSchedule

# The choices of the published schedule: the first trial of every search.
PUBLISHED = dict(ratio='cosine', order='confidence', temperature=6.0, anneal=True, top_p=1.0, limit_top_k=False)


class Trial(Protocol):
    """What is used of a trial of Optuna."""

    def suggest_categorical(self, name: str, choices: Sequence[Any]) -> Any:
        """One of the choices."""

    def suggest_float(self, name: str, low: float, high: float, *, step: float | None = None) -> float:
        """A number of a grid."""

    def suggest_int(self, name: str, low: int, high: int, *, log: bool = False) -> int:
        """A whole number."""


def suggest_schedule(trial: Trial, num_steps: int, num_codes: int) -> SamplingSchedule:
    """The schedule of a trial.

    Numbers lie on a grid of few digits, so that the options of a command give the same schedule.

    Args:
        trial: A trial of Optuna.
        num_steps: Number of steps.
        num_codes: Number of codes of the tokenizer.
    """
    options: dict[str, Any] = dict(num_steps=num_steps)
    options['ratio'] = trial.suggest_categorical('ratio', ['cosine', 'linear', 'power'])
    if options['ratio'] == 'power':
        exponent = trial.suggest_float('exponent', 0.5, 4.0, step=0.1)
        options['ratio'] = f'power:{exponent:.1f}'
    options['order'] = trial.suggest_categorical('order', list(ORDERS))
    if options['order'] == 'confidence':
        options['temperature'] = round(trial.suggest_float('temperature', 0.0, 10.0, step=0.1), 1)
        options['anneal'] = trial.suggest_categorical('anneal', [True, False])
    options['top_p'] = round(trial.suggest_float('top_p', 0.5, 1.0, step=0.01), 2)
    if num_codes > 2 and trial.suggest_categorical('limit_top_k', [False, True]):
        options['top_k'] = trial.suggest_int('top_k', 2, num_codes - 1, log=True)
    return SamplingSchedule(**options)


def command_options(schedule: SamplingSchedule) -> list[str]:
    """Options of ``addp generate`` that give the schedule; those with their default are left out.

    Args:
        schedule: Its ratio has a name.
    """
    default = SamplingSchedule()
    options = ['--steps', str(schedule.num_steps)]
    if schedule.ratio != default.ratio:
        options += ['--schedule', str(schedule.ratio)]
    if schedule.order != default.order:
        options += ['--order', schedule.order]
    if schedule.temperature != default.temperature:
        options += ['--temperature', f'{schedule.temperature:g}']
    if not schedule.anneal:
        options += ['--constant-temperature']
    if schedule.top_p != default.top_p:
        options += ['--top-p', f'{schedule.top_p:g}']
    if schedule.top_k is not None:
        options += ['--top-k', str(schedule.top_k)]
    return options
