# Copyright (c) addp_mm contributors. Apache-2.0.
"""What ADDP's pre-training is worth on FashionScenes: classification, detection and segmentation over several seeds.

Trains and tests each task from the shipped ADDP weights and from random weights through
tools/train.py and tools/test.py, and writes a table. Runs that are done are not repeated.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
from collections.abc import Sequence
from datetime import date
from pathlib import Path

from demo_report.finetunings import ADDP_WEIGHTS, TASKS, WEIGHTS, FineTuning, finetunings
from demo_report.steps import ROOT, Done, Step, StepFailed, StepRunner, clock, fingerprint

from addp_mm.report.logs import LogError
from addp_mm.report.machine import machine_class, versions

Results = dict[str, dict[str, list[float]]]


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--seeds', type=int, nargs='+', default=[0, 1, 2], help='seeds [0 1 2]')
    parser.add_argument('--out', type=Path, default=Path('docs/benchmarks/fashion_scenes.md'), help='the table')
    parser.add_argument(
        '--work-dir',
        type=Path,
        default=Path('work_dirs/benchmarks/fashion_scenes'),
        help='folder of the runs [work_dirs/benchmarks/fashion_scenes]',
    )
    parser.add_argument('--jobs', type=int, default=1, metavar='N', help='runs at once, of one thread each [1]')
    args = parser.parse_args(argv)
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
    """Says for which metrics ADDP weights are above random ones with every seed, and where they are not."""
    clear, partly, below = [], [], []
    for title, by_weights in results.items():
        addp, random = by_weights['addp'], by_weights['random']
        better = statistics.mean(addp) > statistics.mean(random)
        (clear if min(addp) > max(random) else partly if better else below).append(title)
    sentences = [
        f'With ADDP weights, the worst seed is above the best seed from random weights in {_list(clear)}.'
        if clear
        else '',
        f'The mean is above, but the seeds overlap, in {_list(partly)}.' if partly else '',
        f'**ADDP weights are not above random weights in {_list(below)}.**' if below else '',
    ]
    return ' '.join(filter(None, sentences))


def _list(names: Sequence[str]) -> str:
    return names[0] if len(names) == 1 else f'{", ".join(names[:-1])} and {names[-1]}'


def tables(runs: Sequence[FineTuning], results: Results, seeds: Sequence[int]) -> list[str]:
    """The lines of the table of means and of the table of seeds."""
    lines = ['| task | metric | ADDP weights | random weights | difference of means |', '|---|---|---|---|---|']
    for task in TASKS:
        for metric in task.metrics:
            addp, random = (results[metric.title][weights] for weights in WEIGHTS)
            lines.append(
                f'| {task.title}, {task.model} | {metric.title} | {mean_and_spread(addp)} | '
                f'{mean_and_spread(random)} | {statistics.mean(addp) - statistics.mean(random):+.1f} |'
            )
    lines += [
        '',
        'Each seed:',
        '',
        f'| metric | weights | {" | ".join(f"seed {seed}" for seed in seeds)} |',
        f'|---|---|{"---|" * len(seeds)}',
    ]
    lines += [
        f'| {title} | {WEIGHTS[weights]} | {" | ".join(f"{value:.1f}" for value in values)} |'
        for title, by_weights in results.items()
        for weights, values in by_weights.items()
    ]
    lines += ['', '| task | training images | batch size | iterations |', '|---|---|---|---|']
    for run in runs[: 2 * len(TASKS) : 2]:
        schedule = run.schedule()
        lines.append(
            f'| {run.task.title} | {schedule["images"]:,} | {schedule["batch_size"]} | {schedule["iterations"]:,} |'
        )
    return lines


def document(runs: Sequence[FineTuning], steps: Sequence[Step], done: dict[str, Done], args: argparse.Namespace) -> str:
    """The page in Markdown."""
    results = gather(runs)
    machine = machine_class()
    gpu = ' Not measured on a GPU.' if machine.endswith('no GPU') else ''
    longest = max(done[step.name].seconds for step in steps)
    again = f'python .dev/fashion_scenes_transfer.py --seeds {" ".join(map(str, args.seeds))}'
    return '\n'.join(
        [
            '# FashionScenes: ADDP weights against random weights',
            '',
            f'Written by `.dev/fashion_scenes_transfer.py` on {date.today().isoformat()}.',
            '',
            f'Percent on the validation set, mean ± sample standard deviation of {len(args.seeds)} seed(s). Both columns '
            "have the same model, schedule and seeds; only the backbone's first weights differ. The seed decides about "
            'the head, the order and the augmentation, and about the backbone where it starts random; the shipped ADDP '
            'weights come from one pre-training, whose own spread is not in these numbers.',
            '',
            verdict(results),
            '',
            *tables(runs, results, args.seeds),
            '',
            '## Measured with',
            '',
            f'{machine}.{gpu} {args.jobs} run(s) at once; the longest training or test took {clock(longest)} minutes, all '
            f'of them together {clock(sum(done[step.name].seconds for step in steps))}.',
            '',
            ', '.join(f'{name} {version}' for name, version in versions().items()) + '.',
            '',
            f'ADDP weights: `{ADDP_WEIGHTS}`, SHA-256 `{fingerprint(ADDP_WEIGHTS)}`.',
            '',
            '## Commands',
            '',
            'All of them, and this page, again:',
            '',
            '```bash',
            'python tools/dataset_converters/fashion_scenes.py data/fashion_scenes',
            f'{again} --jobs {args.jobs}',
            '```',
            '',
            '<details><summary>Each run</summary>',
            '',
            '```bash',
            *(step.shown for step in steps),
            '```',
            '',
            '</details>',
            '',
        ]
    )


def main(argv: list[str] | None = None) -> None:
    args = parse_args(argv)
    from addp_mm.config.paths import require_writable
    from addp_mm.errors import reported_in_words

    out = args.out.resolve()
    with reported_in_words():
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
        (ROOT / args.work_dir / 'results.json').write_text(json.dumps(gather(runs), indent=2) + '\n')
    except (StepFailed, LogError) as error:
        sys.exit(f'error: {error}')
    except KeyboardInterrupt:
        sys.exit(f'\ninterrupted; `python {" ".join(sys.argv)}` goes on from here')
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(text, encoding='utf-8')
    print(f'{args.out}: written')


if __name__ == '__main__':
    main()
