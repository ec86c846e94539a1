# Copyright (c) addp_mm contributors. Apache-2.0.
"""The checks of a config before a runner is built, as a list that can be run in two ways.

The tools stop at the first error. ``tools/check.py`` collects all errors.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from mmengine.config import Config

from addp_mm.checks.class_numbers import check_class_numbers
from addp_mm.checks.config_numbers import check_numbers
from addp_mm.checks.config_sections import check_kinds, check_sections
from addp_mm.checks.counting import check_counting
from addp_mm.checks.datasets import check_datasets
from addp_mm.checks.evaluators import check_evaluator
from addp_mm.checks.moved_options import check_moved_options
from addp_mm.checks.optimizer import check_optimizer
from addp_mm.checks.save_best import check_rules
from addp_mm.checks.unknown_arguments import config_checks
from addp_mm.checks.workers import check_workers
from addp_mm.config.nodes import node_at
from addp_mm.errors import UserError

#: Dotted names of the data loaders of each split.
LOADERS = {
    'train': ('train_dataloader',),
    'val': ('val_dataloader',),
    'test': ('test_dataloader', 'test_cfg.bank_dataloader'),
}


class Check(NamedTuple):
    """A check.

    Attributes:
        name: What is checked, for reports.
        run: Raises an error if the check fails.
        parts: Smaller checks that find more errors after ``run`` has failed. Defaults to (): none.
    """

    name: str
    run: Callable[[], object]
    parts: Sequence[Callable[[], object]] = ()


def settings_checks(cfg: Config, needed: tuple[str, ...]) -> Iterator[Check]:
    """Yield the checks of a config's keys and values.

    Args:
        cfg: The whole config.
        needed: Top-level keys that the config must have.
    """
    yield Check('kinds of the sections', partial(check_kinds, cfg))
    yield Check('options of earlier versions', partial(check_moved_options, cfg))
    for check in config_checks(cfg, needed):
        yield Check('arguments of the config', check)
    yield Check('numbers of the config', partial(check_numbers, cfg))
    yield Check('sections of the config', partial(check_sections, cfg))
    yield Check('workers of the data loaders', partial(check_workers, cfg))


def training_checks(cfg: Config) -> Iterator[Check]:
    """Yield the checks of what a training counts, of its classes, optimizer and ``save_best``.

    Args:
        cfg: The whole config.
    """
    yield Check('loop, sampler, schedules and hooks', partial(check_counting, cfg))
    yield Check('numbers of classes', partial(check_class_numbers, cfg))
    yield Check('optimizer settings', partial(check_optimizer, cfg))
    yield Check('save_best', partial(check_rules, cfg))


def data_checks(cfg: Config, *splits: str) -> Iterator[Check]:
    """Yield the checks of the data and the evaluators of some splits.

    Repaired annotation files are written into the folder ``annotations`` of the work dir, and the
    config names them. Without a ``work_dir`` they are only logged.

    Args:
        cfg: The whole config.
        *splits: 'train', 'val' or 'test'. Data that two splits share are checked once.
    """
    for split in splits:
        if split != 'train' and cfg.get(f'{split}_evaluator') is not None:
            yield Check(f'{split}_evaluator', partial(check_evaluator, cfg, split))
    loaders: dict[str, Any] = {}
    for loader in (loader for split in splits for loader in LOADERS[split]):
        dataset = (node_at(cfg, loader) or {}).get('dataset')
        if dataset is not None and dataset not in loaders.values():
            loaders[loader] = dataset
    work_dir = cfg.get('work_dir')
    check = partial(check_datasets, cfg, repaired_dir=work_dir and Path(work_dir) / 'annotations')
    yield Check('data', partial(check, *loaders), [partial(check, loader) for loader in loaders])


def run_checks(checks: Iterable[Check]) -> None:
    """Run checks up to the first error, which is raised."""
    for check in checks:
        check.run()


def collect_errors(checks: Iterable[Check]) -> dict[str, list[str]]:
    """Run all checks, also after an error.

    Args:
        checks: The checks. Two may have the same name.

    Returns:
        The messages of the failed checks by name, each one once; [] for a name whose checks passed.
        A message of an error that is no :class:`UserError` starts with its class.
    """
    messages: dict[str, list[str]] = {}
    for check in checks:
        found = messages.setdefault(check.name, [])
        message = _message(check.run)
        for text in [message, *map(_message, check.parts if message else ())]:
            if text and text not in found:
                found.append(text)
    return messages


def _message(run: Callable[[], object]) -> str:
    """The message of a check; '' if it passes."""
    try:
        run()
    except UserError as error:
        return str(error)
    except Exception as error:  # an unforeseen error must not hide the others
        return f'{type(error).__name__}: {error}'
    return ''
