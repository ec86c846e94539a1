# Copyright (c) addp_mm contributors. Apache-2.0.
"""Write docs/benchmarks/backbones.md from the results of ``addp benchmark`` on FashionScenes.

Runs without a result are left out, and the page says how many there are.
"""

from __future__ import annotations

import argparse
import textwrap
from collections.abc import Mapping, Sequence
from datetime import date
from itertools import pairwise
from pathlib import Path

from addp_mm.benchmark.contestants import Contestant
from addp_mm.benchmark.listing import read_listings
from addp_mm.benchmark.results import MODES, Row, Score
from addp_mm.benchmark.step_runner import clock
from addp_mm.benchmark.tables import NONE, score_text, speed_text
from addp_mm.benchmark.tasks import TASKS, Metric
from addp_mm.checkpoints.atomic_write import write_text
from addp_mm.checkpoints.file_fingerprint import file_fingerprint
from addp_mm.config.paths import require_writable
from addp_mm.errors import exit_on_user_error
from addp_mm.report.benchmark_figures import Interval, error_bars
from addp_mm.report.logs import read_json
from addp_mm.report.machine import machine_class, versions

ROOT = Path(__file__).parents[1]
DATA = 'fashion_scenes'
IMAGE = 'images/nano_backbones.svg'  # beside the folder of the page
METRICS = {metric.title: task for task, one in TASKS.items() for metric in one.metrics}
# where the weights of a backbone come from
WEIGHTS = {
    'addp_nano': 'shipped ADDP',
    'mae_nano': 'MAE of mmpretrain, as many operations',
    'token_encoder_nano': 'shipped token predictor, on ids of the shipped tokenizer',
    'volo_nano': 'random',
    'vit_nano': 'random',
}
SHIPPED = ('addp', 'mae', 'token-predictor', 'vq-tokenizer')
FLOPS = ('addp_vit-nano-p8_2xb16-fp32-4k', 'mae_vit-nano-p8_1xb64-fp32-10k')
EQUAL = """\
Equal for all backbones: images, data order and augmentation of a seed, heads, number of iterations, batch size,
optimizer, learning rate, layer decay and its rate, weight decay, and the images of the test. No validation chooses a
checkpoint: the last one is tested, once. Nothing was tuned for any backbone; the settings were made for ADDP's
fine-tuning.

Not equal: the encoder on tokens has 4 blocks and a frozen tokenizer before it, the ViTs have 6, so that layer decay
has fewer depths. VOLO has other numbers of parameters and operations (table below). Its classifier takes the output of
class attention, and those of the others the mean of the patches; UperNet gets its maps of stride 4 and 8, and of the
others four maps of stride 8. ADDP's backbone has a norm after the embedding, MAE's has none, and the random ViT has
ADDP's. MAE's positions are sines and cosines at the start of the fine-tuning.

ADDP, MAE and the predictor come from one pre-training each. The spread of pre-trainings is not in these numbers, nor
is MAE's best learning rate: it was trained once, with ADDP's."""
COMPUTE = """\
ADDP's and MAE's pre-training saw the same 20,000 scenes with the same flips. Forward and backward passes cost 205
TFLOPs for ADDP (128,000 images, frozen tokenizer and predictor included) and 199 for MAE (649,600 images). ADDP's
frozen parts had pre-trainings of their own, which MAE does not need: 284 TFLOPs for the tokenizer and 682 for the
predictor, which reads stored ids. The encoder on tokens rests on these two. To count them:"""


def as_interval(score: Score | None) -> Interval | None:
    """A mean with its spread."""
    if score is None:
        return None
    spread = score.spread or 0.0
    return Interval(score.mean, score.mean - spread, score.mean + spread)


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--work-dir', type=Path, default=Path('work_dirs/benchmarks/backbones'), help='its --work-dir')
    parser.add_argument('--seeds', type=int, nargs='+', action='extend', help='seeds (default: 0 1 2)')
    parser.add_argument('--out', type=Path, default=ROOT / 'docs/benchmarks/backbones.md', help='page to write')
    return parser.parse_args(argv)


def read_rows(work_dir: Path, seeds: Sequence[int]) -> list[Row]:
    """Rows of all backbones and tasks, with what is there of their counts and scores."""
    listed = read_listings([])[DATA]
    rows = [
        Row(Contestant(DATA, task, name, listed[name].title, listed[name].config(task)))
        for task in TASKS
        for name in WEIGHTS
    ]
    for row in rows:
        one = row.contestant
        counts = work_dir / 'results' / f'{one.name}_count.json'
        if counts.is_file():
            row.add_count(counts)
        row.add_turns(sorted(work_dir.glob(f'results/{one.name}_turn*.json')))
        files = {seed: work_dir / 'runs' / f'{one.name}_seed{seed}/test/metrics.json' for seed in seeds}
        written = {seed: read_json(path) for seed, path in files.items() if path.is_file()}
        for metric in TASKS[one.task].metrics if written else ():
            by_seed = {seed: value_of(metric, values) for seed, values in written.items()}
            row.scores[metric.title] = Score(by_seed)
    return rows


def value_of(metric: Metric, written: Mapping[str, float]) -> float:
    """A metric in percent. A detector that found nothing has no AP, which counts as 0."""
    value = written[metric.key] if metric.if_empty is None else written.get(metric.key, metric.if_empty)
    return float(value) * metric.factor


def scores_of(rows: Sequence[Row], title: str) -> dict[str, Score]:
    """The scores of a metric by title of the backbone."""
    return {row.contestant.title: row.scores[title] for row in rows if title in row.scores}


def table(header: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    """A table in Markdown."""
    return '\n'.join(f'| {" | ".join(line)} |' for line in [header, ['---'] * len(header), *lines])


def means(rows: Sequence[Row]) -> str:
    """A line for each backbone: mean and spread of all metrics."""
    names = {row.contestant.backbone: row.contestant.title for row in rows}
    return table(
        ['backbone', 'weights at the start', *METRICS],
        [
            [title, WEIGHTS[name], *(score_text(scores_of(rows, metric).get(title)) for metric in METRICS)]
            for name, title in names.items()
        ],
    )


def chart(rows: Sequence[Row]) -> str:
    """The means as bars, an SVG."""
    titles = dict.fromkeys(row.contestant.title for row in rows)
    known = {metric: scores_of(rows, metric) for metric in METRICS}
    bars = {title: [as_interval(known[metric].get(title)) for metric in METRICS] for title in titles}
    picture = error_bars('Error bars: one standard deviation over the seeds', bars, list(METRICS), 'percent')
    return picture.content.decode()


def each_seed(rows: Sequence[Row], seeds: Sequence[int]) -> str:
    """A line for each backbone and metric."""
    return table(
        ['metric', 'backbone', *(f'seed {seed}' for seed in seeds)],
        [
            [metric, title, *(f'{score.by_seed[seed]:.1f}' if seed in score.by_seed else NONE for seed in seeds)]
            for metric in METRICS
            for title, score in scores_of(rows, metric).items()
        ],
    )


def ranking(scores: Mapping[str, Score]) -> str:
    """Backbones by their mean: ``A > B ~ C``, where ``~`` joins those whose seeds overlap.

    A single seed tells nothing about the spread, and is joined too.
    """
    ordered = sorted(scores.items(), key=lambda item: -item[1].mean)
    text = ordered[0][0]
    for (_, better), (title, score) in pairwise(ordered):
        several = min(len(better.by_seed), len(score.by_seed)) > 1
        above = several and min(better.by_seed.values()) > max(score.by_seed.values())
        text += f' {">" if above else "~"} {title}'
    return text


def rankings(rows: Sequence[Row]) -> str:
    """The ranking of every metric that has a score."""
    known = {metric: scores_of(rows, metric) for metric in METRICS}
    return '\n'.join(f'- {metric}: {ranking(scores)}' for metric, scores in known.items() if scores)


def costs(rows: Sequence[Row]) -> str:
    """Parameters and operations of every backbone, and of its models."""
    lines = []
    for name in dict.fromkeys(row.contestant.backbone for row in rows):
        own = {row.contestant.task: row for row in rows if row.contestant.backbone == name and row.parameters}
        if own:
            first = next(iter(own.values()))
            counts = [f'{first.parameters["backbone"] / 1e6:.2f}', f'{first.macs["backbone"] / 1e6:.0f}']
            counts += [f'{own[task].macs["model"] / 1e6:.0f}' if task in own else NONE for task in TASKS]
            lines.append([first.contestant.title, *counts])
    header = ['backbone', 'parameters of the backbone, M', 'its MMACs for an image']
    return table([*header, *(f'MMACs of the {TASKS[task].title.lower()} model' for task in TASKS)], lines)


def speeds(rows: Sequence[Row]) -> list[str]:
    """Images a second of every backbone that was timed, by task."""
    names = {row.contestant.backbone: row.contestant.title for row in rows if row.speed}
    if not names:
        return []
    timed = {(row.contestant.backbone, row.contestant.task): row.speed for row in rows if row.speed}
    header = ['backbone', *(f'{TASKS[task].title.lower()}, {mode}' for task in TASKS for mode in MODES)]
    lines = [
        [title, *(speed_text(timed.get((name, task), {}).get(mode)) for task in TASKS for mode in MODES)]
        for name, title in names.items()
    ]
    return [
        '## Images a second',
        table(header, lines),
        prose(
            'Median and quartiles of single steps at 64 px, batch 32 (classification) or 16, in float32; the backbones '
            'take turns. ADDP, MAE and ViT are one network up to a norm, so that their differences are noise.'
        ),
    ]


def duration(work_dir: Path) -> str:
    """A sentence on the time that the runs took."""
    stamps = [read_json(path) for kind in ('train', 'test') for path in sorted(work_dir.glob(f'stamps/*_{kind}.json'))]
    seconds = [stamp['seconds'] for stamp in stamps]
    if not seconds:
        return ''
    return (
        f'The longest training or test took {clock(max(seconds))} minutes, all {len(seconds)} together '
        f'{sum(seconds) / 3600:.1f} hours, with other work on the machine.'
    )


def shipped_weights() -> str:
    """A line for each file of shipped weights that a fine-tuning started from."""
    files = [ROOT / f'addp_mm/assets/{name}_nano-p8.safetensors' for name in SHIPPED]
    return table(['weights', 'SHA-256'], [[path.name, f'`{file_fingerprint(path)}`'] for path in files])


def prose(text: str) -> str:
    """Paragraphs wrapped at 100 columns, as in all pages."""
    parts = (' '.join(part.split()) for part in text.split('\n\n'))
    return '\n\n'.join(textwrap.fill(part, 100, break_long_words=False, break_on_hyphens=False) for part in parts)


def heading(rows: Sequence[Row], seeds: Sequence[int]) -> list[str]:
    """Title, commands, and how many runs there are."""
    runs = sum(len(next(iter(row.scores.values())).by_seed) for row in rows if row.scores)
    planned = len(rows) * len(seeds)
    repeats = 3 if any(row.speed for row in rows) else 0
    missing = '' if runs == planned else f' **{planned - runs} of {planned} runs are not done yet.**'
    return [
        '# Nano backbones on FashionScenes',
        '```bash\npython tools/dataset_converters/fashion_scenes.py data/fashion_scenes\n'
        f'addp benchmark --data {DATA} --backbones {" ".join(WEIGHTS)} \\\n'
        f'    --train --seeds {" ".join(map(str, seeds))} --repeats {repeats} '
        '--work-dir work_dirs/benchmarks/backbones\n'
        'python .dev/backbones_page.py\n```',
        prose(
            'trains and tests five backbones under the same heads and writes this page (last written on '
            f'{date.today().isoformat()}). Finished runs are not repeated.{missing}'
        ),
        prose(
            'Percent on the validation set of FashionScenes at 64 px, mean ± sample standard deviation of '
            f'{len(seeds)} seeds. The seed sets the head, the data order, the augmentation and random weights.'
        ),
    ]


def compute() -> list[str]:
    """What the pre-trainings cost."""
    configs = ' \\\n    '.join(f'configs/pretrain/{name}_fashion-scenes-64px.py' for name in FLOPS)
    return [
        '## Compute of the pre-trainings',
        prose(COMPUTE),
        f'```bash\npython tools/benchmarks/pretraining_flops.py \\\n    {configs}\n```',
        prose(
            'Add `--img-size 64 64` and the configs `vq-tokenizer_nano-p8_2xb8-…` and '
            '`token-predictor_nano-p8_from-ids_1xb64-…` for the other two.'
        ),
    ]


def page(rows: Sequence[Row], seeds: Sequence[int], work_dir: Path) -> str:
    """The page in Markdown."""
    machine = machine_class()
    gpu = ' Not measured on a GPU.' if machine.endswith('no GPU') else ''
    parts = [
        *heading(rows, seeds),
        means(rows),
        f'![Means of all metrics as bars](../{IMAGE})',
        prose(
            'By the mean; `>`: the worst seed of the left one is above the best seed of the right one, `~`: their '
            'seeds overlap, or one of them has a single seed, so that this order may be chance.'
        ),
        rankings(rows),
        prose(
            'These are ranks of small models on small images after a short training. They say little about models of '
            'full size.'
        ),
        '## What was equal, and what was not',
        prose(EQUAL),
        *compute(),
        '## Cost of the backbones',
        costs(rows),
        prose('Multiplications with their additions, of one image in inference; the heads differ only in the task.'),
        *speeds(rows),
        '## Each seed',
        each_seed(rows, seeds),
        '## Measured with',
        prose(f'{machine}.{gpu} {duration(work_dir)}'),
        prose(', '.join(f'{name} {version}' for name, version in versions().items()) + '.'),
        shipped_weights(),
    ]
    return '\n\n'.join(filter(None, parts)) + '\n'


def main(argv: list[str] | None = None) -> None:
    """Write the page."""
    args = parse_args(argv)
    seeds = args.seeds or [0, 1, 2]
    with exit_on_user_error():
        require_writable(args.out, '--out')
        rows = read_rows(args.work_dir, seeds)
        write_text(args.out, page(rows, seeds, args.work_dir))
        write_text(args.out.parent.parent / IMAGE, chart(rows))
    print(f'{args.out}: written')


if __name__ == '__main__':
    main()
