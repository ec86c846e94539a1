# Copyright (c) addp_mm contributors. Apache-2.0.
"""Which samples are right, which are wrong, and which make a pair."""

from __future__ import annotations

import json
import math
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal

from torch import Tensor

from addp_mm.checkpoints.atomic_write import write_json
from addp_mm.errors import ConfigError
from addp_mm.generation.trajectories.trajectories import Trajectories, TrajectoryError

_AGAIN = 'select again (addp_mm.alignment.pairs.select), and write the file again'


@dataclass(frozen=True)
class SelectionRule:
    """Decides which samples of a question are right and which are wrong.

    Args:
        by: 'rank': the samples of a question with the highest rewards are right, those with the
            lowest are wrong. 'threshold': all with a reward of at least ``right`` are right, all
            with a reward of at most ``wrong`` are wrong. Defaults to 'rank'.
        right: Share of a question's samples, in (0, 0.5], of which there is at least one; or the
            threshold. Defaults to 0.25.
        wrong: The same for the wrong ones; below ``right`` if it is a threshold. Defaults to 0.25.
        pairs_per_question: Largest number of pairs of a question: the best right and the worst
            wrong sample, then the second ones, and so on. Defaults to 1.

    Raises:
        ConfigError: An option is unknown or out of its range.
    """

    by: Literal['rank', 'threshold'] = 'rank'
    right: float = 0.25
    wrong: float = 0.25
    pairs_per_question: int = 1

    def __post_init__(self) -> None:
        if self.by not in ('rank', 'threshold'):
            raise ConfigError(f"by must be 'rank' or 'threshold', got {self.by!r}")
        if self.by == 'rank' and not (0 < self.right <= 0.5 and 0 < self.wrong <= 0.5):
            raise ConfigError(
                f"right and wrong are shares in (0, 0.5] with by='rank', got {self.right} and {self.wrong}"
            )
        if self.by == 'threshold' and not (math.isfinite(self.right) and self.wrong < self.right):
            raise ConfigError(
                f'the threshold of wrong samples must be below that of right ones, got {self.wrong} and {self.right}'
            )
        if self.pairs_per_question < 1:
            raise ConfigError(f'pairs_per_question must be at least 1, got {self.pairs_per_question}')

    def split(self, rewards: Sequence[float]) -> tuple[list[int], list[int]]:
        """The right samples of a question, best first, and the wrong ones, worst first.

        Args:
            rewards: Of all samples of the question.
        """
        order = sorted(range(len(rewards)), key=lambda sample: -rewards[sample])
        if self.by == 'threshold':
            right = [sample for sample in order if rewards[sample] >= self.right]
            wrong = [sample for sample in reversed(order) if rewards[sample] <= self.wrong]
            return right, wrong
        if len(order) < 2 or rewards[order[0]] == rewards[order[-1]]:
            return [], []
        right = order[: max(1, int(self.right * len(order)))]
        wrong = order[::-1][: max(1, int(self.wrong * len(order)))]
        # no reward is on both sides
        tie = rewards[right[-1]]
        if rewards[wrong[-1]] == tie:
            lower = [sample for sample in wrong if rewards[sample] < tie]
            if lower:
                return right, lower
            return [sample for sample in right if rewards[sample] > tie], wrong
        return right, wrong


@dataclass(frozen=True)
class Selection:
    """What was selected of N samples.

    Attributes:
        right: Numbers of the right samples.
        wrong: Numbers of the wrong samples.
        pairs: Numbers of the chosen and the rejected sample of each pair.
        counts: Numbers of ``samples`` and ``questions``, of questions ``without_right`` and
            ``without_wrong``, and of pairs that were left out because both images are equal
            (``without_difference``).
    """

    right: list[int]
    wrong: list[int]
    pairs: list[tuple[int, int]]
    counts: dict[str, int]


def select(rewards: Sequence[float], questions: Sequence[Any], ids: Tensor, rule: SelectionRule) -> Selection:
    """Select right and wrong samples and pairs.

    Args:
        rewards: Of N samples, finite.
        questions: Which question each sample answers.
        ids: Token ids, (N, L). Samples with the same ids make no pair.
        rule: The rule.

    Returns:
        The selection; the numbers are rows of the arguments.

    Raises:
        TrajectoryError: No pair is left.
    """
    members: dict[Any, list[int]] = {}
    for row, question in enumerate(questions):
        members.setdefault(question, []).append(row)
    selection = Selection([], [], [], {})
    without_right = without_wrong = without_difference = 0
    for rows in members.values():
        right, wrong = ([rows[sample] for sample in side] for side in rule.split([rewards[row] for row in rows]))
        selection.right.extend(right)
        selection.wrong.extend(wrong)
        without_right += not right
        without_wrong += not wrong
        for pair in list(zip(right, wrong, strict=False))[: rule.pairs_per_question]:
            if ids[pair[0]].equal(ids[pair[1]]):
                without_difference += 1
            else:
                selection.pairs.append(pair)
    counts = dict(
        samples=len(rewards),
        questions=len(members),
        without_right=without_right,
        without_wrong=without_wrong,
        without_difference=without_difference,
    )
    if not selection.pairs:
        raise TrajectoryError(_no_pair(counts, rewards, rule))
    return replace(selection, counts=counts)


def _no_pair(counts: Mapping[str, int], rewards: Sequence[float], rule: SelectionRule) -> str:
    advice = 'sample more images of each question'
    if rule.by == 'threshold':
        advice += f', or choose other thresholds than right={rule.right:g} and wrong={rule.wrong:g}'
    if min(rewards) == max(rewards):
        advice = 'the reward is the same for all images. Look at them, and choose a reward that tells them apart'
    return (
        f'no pair is left of {counts["samples"]} samples of {counts["questions"]} questions: '
        f'{counts["without_right"]} questions have no right sample, {counts["without_wrong"]} no wrong one, and '
        f'{counts["without_difference"]} pairs have equal images. The rewards are from {min(rewards):g} to '
        f'{max(rewards):g}: {advice}'
    )


def questions_of(trajectories: Trajectories) -> list[Hashable]:
    """Which question each sample answers: what the sampler was given.

    Args:
        trajectories: Of N images.

    Returns:
        N questions. That of an image without known tokens is its class. Otherwise, it is the class
        with the known ids and their positions: samples of the same hole of the same image answer
        the same question.
    """
    known = trajectories.ids.masked_fill(trajectories.generated, -1).tolist()
    labels, whole = trajectories.labels.tolist(), trajectories.generated.all(1).tolist()
    return [label if blank else (label, *ids) for label, ids, blank in zip(labels, known, whole, strict=True)]


def write_selection(
    path: Path,
    selection: Selection,
    numbers: Sequence[int],
    settings: Mapping[str, Any],
    rule: SelectionRule | None = None,
) -> None:
    """Write a selection as JSON.

    Args:
        path: The file.
        selection: Its numbers are rows.
        numbers: Number of the image of each row; the file has these.
        settings: Settings of the trajectories.
        rule: The rule, for a reader of the file. Defaults to None.
    """
    content = dict(
        settings=settings,
        right=[numbers[row] for row in selection.right],
        wrong=[numbers[row] for row in selection.wrong],
        pairs=[[numbers[row] for row in pair] for pair in selection.pairs],
        counts=selection.counts,
        rule=None if rule is None else asdict(rule),
    )
    write_json(path, content)


def read_selection(path: Path, numbers: Sequence[int], settings: Mapping[str, Any]) -> Selection:
    """Read a selection.

    Args:
        path: The file.
        numbers: Numbers of the images whose trajectories are stored.
        settings: Settings of the trajectories.

    Raises:
        TrajectoryError: The file is missing or damaged, or belongs to other trajectories.
    """
    try:
        content = json.loads(path.read_text(encoding='utf-8'))
        selection = Selection(
            content['right'], content['wrong'], [tuple(pair) for pair in content['pairs']], content['counts']
        )
        own_settings = content['settings']
        used = {*selection.right, *selection.wrong, *(image for pair in selection.pairs for image in pair)}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise TrajectoryError(f'{path} cannot be read as a selection ({error!r}): {_AGAIN}') from error
    if own_settings != settings:
        raise TrajectoryError(f'{path} was selected from other trajectories: {_AGAIN}')
    missing = sorted(used - {*numbers})
    if missing:
        raise TrajectoryError(f'{path} names images without trajectories, such as {missing[0]}: generate them again')
    return selection
