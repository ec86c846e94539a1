# Copyright (c) addp_mm contributors. Apache-2.0.
r"""End real trainings at random moments, resume them, and compare them with uninterrupted ones.

    python .dev/chaos.py --runs 200

Each shipped kind of training is started by tools/train.py with a nano recipe, and ended up to five
times: by SIGKILL, SIGTERM, SIGINT or SIGUSR1, at any moment of the run or shortly after a
checkpoint appears. Then it is resumed to its end. Weights, optimizer, moving averages, schedules,
histories and logged values must equal those of an uninterrupted training, bit for bit. After that,
faults of files, disks, data and processes are put into trainings. The same command continues an
interrupted run. docs/reliability.md has the tables.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import sys
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from pathlib import Path

from chaos_runs.faults import faults_here, run_trial
from chaos_runs.kills import MOST_KILLS, run_chain, whole_run
from chaos_runs.kinds import KINDS, named
from chaos_runs.table import faults_table, kills_table
from chaos_runs.training import preload
from tqdm import tqdm

from addp_mm.datasets.fashion.scene_writer import SceneSetSpec, write_fashion_scenes


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--runs', type=int, default=200, metavar='N', help='number of ends of trainings [200]')
    parser.add_argument(
        '--kinds', nargs='+', action='extend', default=[], choices=[kind.name for kind in KINDS], help='[all]'
    )
    parser.add_argument(
        '--faults', nargs='*', action='extend', metavar='NAME', help='names of faults; without a name, none [all]'
    )
    parser.add_argument('--seed', type=int, default=0, help='seed of the moments and signals [0]')
    parser.add_argument('--processes', type=int, default=2, metavar='N', help='trainings at the same time [2]')
    parser.add_argument('--out', type=Path, default=Path('work_dirs/chaos'), help='folder [work_dirs/chaos]')
    parser.add_argument('--data', type=Path, help='FashionScenes of a few images; written if it is missing [OUT/data]')
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> int:
    """Run the script; the status is 1 if something was lost or different."""
    args = parse_args(argv)
    os.environ['OMP_NUM_THREADS'] = '1'
    out = args.out.absolute()
    data = (args.data or out / 'data').absolute()
    kinds = named(args.kinds)
    preload({kind.package for kind in kinds})
    _write_data(data)
    with ProcessPoolExecutor(args.processes, multiprocessing.get_context('fork')) as pool:
        _each(pool, 'uninterrupted trainings', ((whole_run, kind, out, data) for kind in kinds))
        chains = _read(out / 'kills.jsonl')
        jobs = (
            (run_chain, kind, number, out, data, args.seed, MOST_KILLS)
            for number, kind in _endless(kinds)
            if number not in {chain['number'] for chain in chains}
        )
        bar = tqdm(total=args.runs, initial=_ends(chains), desc='ends of trainings', disable=None)
        for chain in _until(pool, jobs, lambda: _ends(chains) >= args.runs, args.processes):
            chains.append(_append(out / 'kills.jsonl', chain.as_dict()))
            bar.update(len(chain.ends))
        bar.close()
        trials = _read(out / 'faults.jsonl')
        known = {(trial['fault'], trial['kind']) for trial in trials}
        wanted = faults_here() if args.faults is None else args.faults
        jobs = [(run_trial, fault, kind, out, data) for fault in wanted for kind in kinds]
        jobs = [job for job in jobs if (job[1], job[2].name) not in known]
        for trial in tqdm(_until(pool, iter(jobs), lambda: False, args.processes), total=len(jobs), desc='faults'):
            trials.append(_append(out / 'faults.jsonl', trial.as_dict()))
    print(f'\n{kills_table(chains)}\n\n{faults_table(trials)}')
    bad = [entry for entry in [*chains, *trials] if entry['lost'] or entry['different']]
    for entry in bad:
        print(f'\n{json.dumps(entry, indent=1)}')
    return int(bool(bad))


def _write_data(folder: Path) -> None:
    if folder.is_dir():
        return
    write_fashion_scenes(folder, SceneSetSpec(train=32, val=8, objects_train=40, objects_val=10))


def _endless(kinds: list) -> Iterator[tuple]:
    number = 0
    while True:
        yield number, kinds[number % len(kinds)]
        number += 1


def _each(pool: ProcessPoolExecutor, title: str, jobs: Iterable[tuple]) -> None:
    futures = [pool.submit(*job) for job in jobs]
    for future in tqdm(futures, desc=title, disable=None):
        future.result()


def _until(pool: ProcessPoolExecutor, jobs: Iterator[tuple], enough: Callable[[], bool], count: int) -> Iterator:
    """Yield results of jobs, ``count`` at the same time, until there are enough."""
    running: set[Future] = set()
    while True:
        while len(running) < count and not enough() and (job := next(jobs, None)):
            running.add(pool.submit(*job))
        if not running:
            return
        done, running = wait(running, return_when=FIRST_COMPLETED)
        for future in done:
            yield future.result()


def _ends(chains: list[dict]) -> int:
    return sum(len(chain['ends']) for chain in chains)


def _read(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text().splitlines()] if path.is_file() else []


def _append(path: Path, entry: dict) -> dict:
    with open(path, 'a') as file:
        file.write(json.dumps(entry) + '\n')
    return entry


if __name__ == '__main__':
    sys.exit(main())
