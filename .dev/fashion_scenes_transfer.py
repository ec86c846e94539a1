# Copyright (c) addp_mm contributors. Apache-2.0.
"""Compare ADDP weights with random weights on FashionScenes, over several seeds.

Trains and tests classification, detection and segmentation with tools/train.py and tools/test.py,
and writes a page with the results. Finished runs are not repeated.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import textwrap
from collections.abc import Sequence
from datetime import date
from pathlib import Path

from demo_report.finetunings import ADDP_WEIGHTS, ROOT, TASKS, WEIGHTS, FineTuning, finetunings

from addp_mm.benchmark.step import Step
from addp_mm.benchmark.step_runner import Done, StepError, StepRunner, clock
from addp_mm.checkpoints.atomic_write import write_text
from addp_mm.checkpoints.file_fingerprint import file_fingerprint
from addp_mm.config.paths import require_writable
from addp_mm.errors import exit_on_user_error
from addp_mm.report.logs import LogError
from addp_mm.report.machine import machine_class, versions

Results = dict[str, dict[str, list[float]]]


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--seeds', type=int, nargs='+', action='extend', help='seeds (default: 0 1 2)')
    parser.add_argument('--out', type=Path, default=Path('docs/benchmarks/fashion_scenes.md'), help='page to write')
    parser.add_argument(
        '--work-dir',
        type=Path,
        default=Path('work_dirs/benchmarks/fashion_scenes'),
        help='folder of the runs (default: work_dirs/benchmarks/fashion_scenes)',
    )
    parser.add_argument(
        '--jobs', type=int, default=1, metavar='N', help='runs at once, of one thread each (default: 1)'
    )
    args = parser.parse_args(argv)
    args.seeds = args.seeds or [0, 1, 2]
    if args.jobs < 1 or len(set(args.seeds)) < len(args.seeds):
        parser.error('--jobs must be at least 1, and each seed may be given once')
    return args


def gather(runs: Sequence[FineTuning]) -> Results:
    """Each metric's values, in the order of the seeds, by metric and weights."""
    results: Results = {metric.title: {weights: [] for weights in WEIGHTS} for task in TASKS for metric in task.metrics}
    for run in runs:
        for title, value in run.results().items():
            results[title][run.weights].append(value)
    return results


def mean_and_spread(values: Sequence[float]) -> str:
    """``'41.2 ± 0.8'``: mean and sample standard deviation; only the mean of a single value."""
    mean = f'{statistics.mean(values):.1f}'
    return f'{mean} ± {statistics.stdev(values):.1f}' if len(values) > 1 else mean


def verdict(results: Results) -> str:
    """Sentences on the metrics in which ADDP weights are better with every seed, and the others."""
    clear, partly, below = [], [], []
    for title, by_weights in results.items():
        addp, random = by_weights['addp'], by_weights['random']
        better = statistics.mean(addp) > statistics.mean(random)
        (clear if min(addp) > max(random) else partly if better else below).append(title)
    sentences = [
        f'The worst seed of ADDP weights is above the best seed of random weights in {_list(clear)}.' if clear else '',
        f'The mean is above, but the seeds overlap, in {_list(partly)}.' if partly else '',
        f'**ADDP weights are not above random weights in {_list(below)}.**' if below else '',
    ]
    return ' '.join(filter(None, sentences))


def _list(names: Sequence[str]) -> str:
    return names[0] if len(names) == 1 else f'{", ".join(names[:-1])} and {names[-1]}'


def tables(runs: Sequence[FineTuning], results: Results, seeds: Sequence[int]) -> tuple[str, str, str]:
    """Three tables: means, each seed, and training settings."""
    means = ['| task | metric | ADDP weights | random weights | difference of means |', '|---|---|---|---|---|']
    for task in TASKS:
        for metric in task.metrics:
            addp, random = (results[metric.title][weights] for weights in WEIGHTS)
            means.append(
                f'| {task.title}, {task.model} | {metric.title} | {mean_and_spread(addp)} | '
                f'{mean_and_spread(random)} | {statistics.mean(addp) - statistics.mean(random):+.1f} |'
            )
    each = [f'| metric | weights | {" | ".join(f"seed {s}" for s in seeds)} |', f'|---|---|{"---|" * len(seeds)}']
    each += [
        f'| {title} | {WEIGHTS[weights]} | {" | ".join(f"{value:.1f}" for value in values)} |'
        for title, by_weights in results.items()
        for weights, values in by_weights.items()
    ]
    settings = ['| task | training images | batch size | iterations |', '|---|---|---|---|']
    for run in runs[: 2 * len(TASKS) : 2]:
        schedule = run.schedule()
        settings.append(
            f'| {run.task.title} | {schedule["images"]:,} | {schedule["batch_size"]} | {schedule["iterations"]:,} |'
        )
    return '\n'.join(means), '\n'.join(each), '\n'.join(settings)


def prose(text: str) -> str:
    """Text wrapped at 100 columns, as in all pages."""
    return textwrap.fill(text, 100, break_long_words=False, break_on_hyphens=False)


def document(runs: Sequence[FineTuning], steps: Sequence[Step], done: dict[str, Done], args: argparse.Namespace) -> str:
    """The page in Markdown."""
    results = gather(runs)
    means, each, settings = tables(runs, results, args.seeds)
    machine = machine_class()
    gpu = ' Not measured on a GPU.' if machine.endswith('no GPU') else ''
    longest = max(done[step.name].seconds for step in steps)
    again = f'python .dev/fashion_scenes_transfer.py --seeds {" ".join(map(str, args.seeds))} --jobs {args.jobs}'
    commands = '\n'.join(step.shown for step in steps)
    paragraphs = [
        '# FashionScenes: ADDP weights against random weights',
        f'Written by `.dev/fashion_scenes_transfer.py` on {date.today().isoformat()}.',
        prose(
            f'Percent on the validation set, mean ± sample standard deviation of {len(args.seeds)} seed(s). Both '
            'columns have the same model, schedule and seeds. Only the first weights of the backbone differ. The '
            'seed sets the head, the data order and the augmentation, and a random backbone. The shipped ADDP '
            'weights come from one pre-training: the spread of pre-trainings is not in these numbers.'
        ),
        prose(verdict(results)),
        means,
        'Each seed:',
        each,
        settings,
        '## Measured with',
        prose(
            f'{machine}.{gpu} {args.jobs} run(s) at once. The longest training or test took {clock(longest)} '
            f'minutes, all of them {clock(sum(done[step.name].seconds for step in steps))}.'
        ),
        prose(', '.join(f'{name} {version}' for name, version in versions().items()) + '.'),
        prose(f'ADDP weights: `{ADDP_WEIGHTS}`, SHA-256 `{file_fingerprint(ADDP_WEIGHTS)}`.'),
        '## Commands',
        'To repeat everything and write this page:',
        f'```bash\npython tools/dataset_converters/fashion_scenes.py data/fashion_scenes\n{again}\n```',
        '<details><summary>Each run</summary>',
        f'```bash\n{commands}\n```',
        '</details>',
    ]
    return '\n\n'.join(paragraphs) + '\n'


def main(argv: list[str] | None = None) -> None:
    """Run the benchmark and write its page."""
    args = parse_args(argv)
    out = args.out.resolve()
    with exit_on_user_error():
        require_writable(out, '--out')
    os.chdir(ROOT)
    if not Path('data/fashion_scenes/fashion_scenes.json').is_file():
        sys.exit(
            'error: data/fashion_scenes is missing. Write it first:\n'
            '$ python tools/dataset_converters/fashion_scenes.py data/fashion_scenes'
        )
    runs = finetunings(args.work_dir, args.seeds)
    steps = [step for run in runs for step in run.steps()]
    try:
        done = StepRunner(args.work_dir, args.jobs, threads=1).run(steps)
        text = document(runs, steps, done, args)
    except (StepError, LogError) as error:
        sys.exit(f'error: {error}')
    except KeyboardInterrupt:
        sys.exit(f'\ninterrupted; `python {" ".join(sys.argv)}` continues at this step')
    write_text(out, text)
    print(f'{args.out}: written')


if __name__ == '__main__':
    main()
