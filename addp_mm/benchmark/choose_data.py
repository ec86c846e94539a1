# Copyright (c) addp_mm contributors. Apache-2.0.
"""The data sets and tasks of a benchmark, from the options ``--data`` and ``--task``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from addp_mm.benchmark.tasks import DATA, TASKS, USUAL_DATA, tasks_of
from addp_mm.errors import ConfigError, suggest


def choose_data(data: Sequence[str], tasks: Sequence[str]) -> list[tuple[str, str]]:
    """Pairs (data set, task) of the options ``--data`` and ``--task``.

    Args:
        data: Names of data sets; empty for the usual one of each task.
        tasks: Names of tasks; empty for all tasks of the data sets.

    Raises:
        ConfigError: A name is unknown or given twice, or no data set has a task.
    """
    _check_names('--data', data, DATA)
    _check_names('--task', tasks, TASKS)
    tasks = tasks or [task for task in TASKS if any(task in tasks_of(name) for name in data or DATA)]
    if not data:
        return [(USUAL_DATA[task], task) for task in tasks]
    for task in tasks:
        if not any(task in tasks_of(name) for name in data):
            having = ', '.join(name for name in DATA if task in tasks_of(name))
            raise ConfigError(f'--task {task}: {", ".join(data)} has no such task. Add --data {having}')
    for name in data:
        if not set(tasks_of(name)) & set(tasks):
            raise ConfigError(
                f'--data {name}: it has only the task {", ".join(tasks_of(name))}, which --task leaves out'
            )
    return [(name, task) for name in data for task in tasks if task in tasks_of(name)]


def refuse_repeats(option: str, values: Sequence[object]) -> None:
    """Refuse an option that has a value twice.

    Args:
        option: The option, such as ``'--seeds'``.
        values: Its values.

    Raises:
        ConfigError: The message names the option and the value.
    """
    for value in values:
        if values.count(value) > 1:
            raise ConfigError(f'{option} {value} is given twice')


def _check_names(option: str, names: Sequence[str], known: Mapping[str, Any]) -> None:
    for name in names:
        if name not in known:
            raise ConfigError(f'{option} {name} is unknown{suggest(name, known)}; choose from {", ".join(known)}')
    refuse_repeats(option, names)
