# Copyright (c) addp_mm contributors. Apache-2.0.
"""What a swap changes, as text for people and as JSON for programs."""

from __future__ import annotations

import shlex
import textwrap
from collections.abc import Iterator
from dataclasses import asdict
from typing import Any

from mmengine.config import Config

from addp_mm.cli_options import aligned
from addp_mm.config.nodes import node_at
from addp_mm.swap.differences import ABSENT, Difference, differences
from addp_mm.swap.plan import Change, SwapPlan
from addp_mm.swap.source_text import in_one_line
from addp_mm.swap.trial import Trial

_LONGEST = 44  # characters of a value in the table
_COLUMNS = 100


def rows_of(plan: SwapPlan, before: Config, after: Config) -> Iterator[tuple[Change, list[Difference]]]:
    """Yield each change of a plan with the values that it makes different.

    Args:
        plan: The plan.
        before: The original config.
        after: The config with the changes.
    """
    for change in plan.changes:
        old, new = (node_at(cfg, change.key, ABSENT) for cfg in (before, after))
        if change.key == 'custom_imports':
            yield change, [Difference(change.key, old, new)]
        else:
            yield change, list(differences(old, new, change.key))


def table(plan: SwapPlan, before: Config, after: Config) -> str:
    """The changes: key, value before and after, and below each the reason."""
    rows = [('key', 'before', 'after')]
    reasons: dict[int, str] = {}
    for change, found in rows_of(plan, before, after):
        if not found:
            continue
        if reasons.get(len(rows) - 1) == change.reason:  # several changes may share a reason
            del reasons[len(rows) - 1]
        rows += [(one.key, _shortened(one.before), _shortened(one.after)) for one in found]
        reasons[len(rows) - 1] = change.reason
    lines = aligned(rows).split('\n')
    shown = []
    for index, line in enumerate(lines):
        shown.append(line)
        if reasons.get(index):
            shown += textwrap.wrap(reasons[index], _COLUMNS, initial_indent='    ', subsequent_indent='    ')
    return '\n'.join(shown)


def _shortened(value: Any) -> str:
    text = _in_one_line(value)
    return text if len(text) <= _LONGEST else text[: _LONGEST - 1] + '…'


def _in_one_line(value: Any) -> str:
    """A value as source code; objects by their types, in a list without their arguments."""
    if isinstance(value, dict) and isinstance(value.get('type'), str):
        inner = in_one_line({key: part for key, part in value.items() if key not in ('type', '_scope_')})
        return value['type'] + inner.removeprefix('dict')
    if isinstance(value, list | tuple) and value and all(isinstance(part, dict) and 'type' in part for part in value):
        return f'[{", ".join(str(part["type"]) for part in value)}]'
    return in_one_line(value)


def maps_in_words(maps: tuple[tuple[int, float | None], ...]) -> str:
    """Channels and strides of maps: ``'256 channels at stride 4, 8, 16'``."""
    words = []
    for channels in dict.fromkeys(channels for channels, _ in maps):
        strides = [f'{stride:g}' for one, stride in maps if one == channels and stride is not None]
        words.append(f'{channels} channels' + (f' at stride {", ".join(strides)}' if strides else ''))
    return '; '.join(words) or 'none'


def trial_in_words(trial: Trial) -> Iterator[str]:
    """Yield lines that say what a trial has shown."""
    height, width = trial.img_size
    yield f'maps for the heads: {maps_in_words(trial.maps)}'
    yield (
        f'trial: one training step (loss {trial.losses["loss"]:.3f}) and one prediction ({", ".join(trial.predicted)}) '
        f'of made-up images of {height} x {width} px'
    )
    if trial.idle:
        yield f'note: no loss depends on {len(trial.idle)} parameters of the heads, such as {trial.idle[0]}'
    yield from (f'note: {note}' for note in trial.notes)


def train_command(out: str) -> str:
    """The command that trains a config file."""
    return shlex.join(['addp', 'train', out])


def as_json(
    plan: SwapPlan, before: Config, after: Config, out: str, parameters: tuple[int, int], trial: Trial | None
) -> dict:
    """The report as JSON values.

    Args:
        plan: The plan.
        before: The original config.
        after: The config with the changes.
        out: The written file.
        parameters: Number of parameters of the model before and after.
        trial: What the trial has shown; None if there was none.
    """
    return dict(
        config=plan.config,
        backbone=plan.backbone,
        out=out,
        task=plan.task,
        changes=[
            dict(key=one.key, before=_plain(one.before), after=_plain(one.after), reason=change.reason)
            for change, found in rows_of(plan, before, after)
            for one in found
        ],
        notes=list(plan.notes),
        warnings=list(plan.warnings),
        image_divisor=plan.image_divisor,
        parameters=dict(before=parameters[0], after=parameters[1]),
        trial=None if trial is None else asdict(trial),
        command=train_command(out),
    )


def _plain(value: Any) -> Any:
    """The value as JSON has it; a missing value is null."""
    if isinstance(value, dict):
        return {str(key): _plain(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(inner) for inner in value]
    return None if value is ABSENT else value
