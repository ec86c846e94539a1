# Copyright (c) addp_mm contributors. Apache-2.0.
"""cDPO on a small language model: which tokens spoil an answer, and what training on them gives.

    python examples/arithmetic/run.py --out work_dirs/arithmetic

A small transformer learns to add digits step by step. Its wrong answers are examined token by
token: by rollouts, and by the contrastive scores of cDPO. Then it is fine-tuned by each method with
the same budget, and tested on new questions.

Each seed writes seed_N.json when it is finished; the same command continues with the others. At the
end it writes results.json, tables.md and the figures.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from experiment import run_seed
from settings import Settings
from sum_figures import accuracy_figure, answers_figure
from summary import accuracy_table, agreement_table, answers_of, learning_rate_table, summary
from tqdm import tqdm

from addp_mm.checkpoints.atomic_write import atomic_path, write_json, write_text
from addp_mm.cli_options import number
from addp_mm.config.paths import require_writable_folder
from addp_mm.errors import ConfigError, exit_on_interrupt, exit_on_user_error
from addp_mm.folder_lock import lock_folder
from addp_mm.report.machine import machine_class, versions

_SHOWN = 4  # answers in the figure


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        '--seeds',
        type=number(int, 0),
        nargs='+',
        default=[0, 1, 2],
        metavar='N',
        help='one whole experiment for each [0 1 2]',
    )
    parser.add_argument(
        '--out',
        type=Path,
        default=Path('work_dirs/arithmetic'),
        metavar='DIR',
        help='folder of the results [%(default)s]',
    )
    return parser.parse_args(argv)


def finished(path: Path, settings: Settings) -> dict[str, Any] | None:
    """The results of a seed, if they are there.

    Raises:
        ConfigError: They cannot be read, or have other settings.
    """
    if not path.exists():
        return None
    try:
        result = json.loads(path.read_text(encoding='utf-8'))
        same = result['settings'] == _as_json(settings)
    except (ValueError, KeyError, TypeError) as error:
        raise ConfigError(f'{path} cannot be read as results of a seed ({error!r}): remove it') from error
    if not same:
        raise ConfigError(f'{path} has results with other settings: remove it, or choose another folder with --out')
    return result


def run(args: argparse.Namespace, settings: Settings) -> None:
    """Run all seeds that are missing, and write what they give together."""
    require_writable_folder(args.out, '--out')
    with lock_folder(args.out):
        results = []
        for seed in tqdm(dict.fromkeys(args.seeds), desc='seeds'):
            path = args.out / f'seed_{seed}.json'
            result = finished(path, settings)
            if result is None:
                result = dict(settings=_as_json(settings), seed=seed, **run_seed(settings, seed))
                write_json(path, result)
            results.append(result)
        write_results(args.out, results, settings)


def write_results(out: Path, results: Sequence[dict[str, Any]], settings: Settings) -> None:
    """Write the summary of all seeds, its tables and the figures; print the tables."""
    found = summary(results)
    tables = '\n'.join([accuracy_table(found), agreement_table(found), learning_rate_table(results)])
    seeds = [result['seed'] for result in results]
    about = dict(seeds=seeds, settings=_as_json(settings), machine=machine_class(), versions=versions())
    write_json(out / 'results.json', dict(**about, **found))
    write_text(out / 'tables.md', tables)
    pictures = {'accuracy.svg': accuracy_figure(found), 'answers.svg': answers_figure(answers_of(results[:1])[:_SHOWN])}
    for name, picture in pictures.items():
        with atomic_path(out / name) as partial:
            partial.write_bytes(picture.content)
    print(f'{tables}\nwritten to {out}: results.json, tables.md, {", ".join(pictures)}')


def _as_json(settings: Settings) -> dict[str, Any]:
    """The settings as they are read from a JSON file."""
    return json.loads(json.dumps(asdict(settings)))


def main(argv: Sequence[str] | None = None, settings: Settings | None = None) -> None:
    """Command line entry point.

    Args:
        argv: Defaults to None: the arguments of the process.
        settings: Defaults to None: those of :class:`~settings.Settings`.
    """
    args = parse_args(argv)
    again = 'finished seeds are kept: give the same command again to continue'
    with exit_on_interrupt(again), exit_on_user_error():
        run(args, settings or Settings())


if __name__ == '__main__':
    main()
