# Copyright (c) addp_mm contributors. Apache-2.0.
"""Measure how much faster a predictor trains on stored ids than on images tokenized in each step.

Both trainings take turns in one process, with the same predictor, batch size and optimizer, so that
other load of the machine slows both. The result is written to a section of a benchmark page.
"""

from __future__ import annotations

import argparse
import logging
import re
import statistics
import textwrap
import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date
from pathlib import Path

from addp_mm.checkpoints.atomic_write import write_text
from addp_mm.report.machine import machine_class, versions

IMAGES = 'configs/pretrain/token-predictor_nano-p8_2xb16-fp32-8k_fashion-scenes-64px.py'
IDS = 'configs/pretrain/token-predictor_nano-p8_from-ids_2xb16-fp32-8k_fashion-scenes-64px.py'
PAGE, HEADING = Path('docs/benchmarks/own_data.md'), '## Predictor from stored ids'
WARM_UP = 3


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        '--images', default=IMAGES, metavar='CONFIG', help='config that trains on images [nano predictor]'
    )
    parser.add_argument(
        '--ids', default=IDS, metavar='CONFIG', help='config that trains on stored ids [nano predictor]'
    )
    parser.add_argument('--tokens', metavar='FOLDER', help="folder of the stored ids [the config's]")
    parser.add_argument('--steps', type=int, default=20, metavar='N', help='steps in a turn [20]')
    parser.add_argument('--pairs', type=int, default=5, metavar='N', help='turns of each training [5]')
    parser.add_argument('--out', type=Path, default=PAGE, help=f'page with the section [{PAGE}]')
    args = parser.parse_args(argv)
    if args.steps < 1 or args.pairs < 1:
        parser.error('--steps and --pairs must be at least 1')
    return args


@dataclass(frozen=True)
class Pair:
    """Steps per second of one turn on images and one turn on stored ids."""

    images: float
    ids: float

    @property
    def ratio(self) -> float:
        """How many times faster the training on ids is."""
        return self.ids / self.images


class Training:
    """Model, optimizer and data of a config."""

    def __init__(self, cfg) -> None:
        import torch
        from mmengine.optim import build_optim_wrapper
        from mmengine.registry import init_default_scope
        from mmengine.runner import Runner

        from addp_mm.checkpoints.init_weights import init_weights
        from addp_mm.registry import MODELS

        init_default_scope(cfg.default_scope)
        torch.manual_seed(0)
        self.model = MODELS.build(cfg.model)
        init_weights(self.model)
        self.device = torch.device('cuda' if torch.cuda.is_available() else 'cpu')
        self.model.to(self.device).train()
        self.optimizer = build_optim_wrapper(self.model, cfg.optim_wrapper)
        self.loader = Runner.build_dataloader(cfg.train_dataloader, seed=0)
        self.batches = self._endless()

    def _endless(self) -> Iterator[dict]:
        while True:
            yield from self.loader

    def steps_per_second(self, steps: int) -> float:
        """Run training steps, and return how many run in a second."""
        import torch

        start = time.perf_counter()
        for _ in range(steps):
            self.model.train_step(next(self.batches), self.optimizer)
        if self.device.type == 'cuda':
            torch.cuda.synchronize()
        return steps / (time.perf_counter() - start)


def configs(args: argparse.Namespace, drop_ratio: float):
    """Both configs with the same predictor and loss; they differ in the source of the ids."""
    from addp_mm.config.config_file import ConfigError, load_config

    images, ids = load_config(args.images), load_config(args.ids)
    if images.train_dataloader.batch_size != ids.train_dataloader.batch_size:
        raise ConfigError(f'{args.images} and {args.ids} must have the same batch size')
    ids.model.drop_ratio = drop_ratio
    if args.tokens:
        ids.train_dataloader.dataset.data_root = args.tokens
    own = {key: images.model[key] for key in ('tokenizer', 'data_preprocessor')}
    images.model = {**ids.model, **own}
    images.optim_wrapper = ids.optim_wrapper
    return images, ids


def measure(args: argparse.Namespace, drop_ratio: float) -> list[Pair]:
    """Take turns, after a few steps of each training that are not measured."""
    trainings = [Training(cfg) for cfg in configs(args, drop_ratio)]
    for training in trainings:
        training.steps_per_second(WARM_UP)
    pairs = []
    for number in range(args.pairs):
        pairs.append(Pair(*(training.steps_per_second(args.steps) for training in trainings)))
        print(
            f'drop ratio {drop_ratio}, turn {number + 1} of {args.pairs}: {pairs[-1].images:.2f} steps/s on images, '
            f'{pairs[-1].ids:.2f} on ids, ratio {pairs[-1].ratio:.2f}',
            flush=True,
        )
    return pairs


def row(name: str, pairs: list[Pair]) -> str:
    """A line of the table: medians, and the range of the ratio."""
    images, ids, ratios = ([getattr(pair, key) for pair in pairs] for key in ('images', 'ids', 'ratio'))
    return (
        f'| {name} | {statistics.median(images):.2f} | {statistics.median(ids):.2f} | '
        f'**{statistics.median(ratios):.1f}** ({min(ratios):.1f} to {max(ratios):.1f}) |'
    )


def section(args: argparse.Namespace, results: dict[float, list[Pair]], batch_size: int) -> str:
    """The section of the page."""
    names = {
        drop: f'{drop:.0%} of the tokens dropped in the encoder' if drop else 'all tokens in the encoder'
        for drop in results
    }
    options = ''.join(
        f' --{key} {getattr(args, key)}'
        for key, default in (('images', IMAGES), ('ids', IDS), ('tokens', None))
        if getattr(args, key) != default
    )
    what = (
        f'Written by `tools/benchmarks/token_cache.py` on {date.today().isoformat()}: training steps per second of '
        f'one process, batch {batch_size}, on images that the frozen tokenizer encodes in each step and on ids that '
        f'`tools/dataset_converters/tokenize_images.py` stored. Medians of {args.pairs} turns of {args.steps} steps of '
        'each; in brackets the smallest and largest ratio of two neighbouring turns.'
    )
    why = (
        'Stored ids save the time of the tokenizer and of reading and cropping images. Its share of a step depends on '
        'the sizes of tokenizer and predictor: measure your own with `--images` and `--ids`.'
    )
    with_what = (
        f'Measured with {machine_class()}{"; not measured on a GPU" if "no GPU" in machine_class() else ""}. '
        f'{", ".join(f"{name} {version}" for name, version in versions().items())}.'
    )
    return '\n'.join(
        [
            HEADING,
            '',
            wrapped(what),
            '',
            '| predictor | on images, steps/s | on stored ids, steps/s | ratio |',
            '|---|---|---|---|',
            *(row(names[drop], pairs) for drop, pairs in results.items()),
            '',
            wrapped(why),
            '',
            wrapped(with_what),
            '',
            '```bash',
            f'python tools/benchmarks/token_cache.py{options} --pairs {args.pairs} --steps {args.steps}',
            '```',
            '',
        ]
    )


def wrapped(prose: str) -> str:
    """Break prose into lines of at most 100 columns."""
    return textwrap.fill(prose, 100, break_long_words=False, break_on_hyphens=False)


def write_section(page: Path, text: str) -> None:
    """Replace the section of a page that has the same heading, or append it."""
    heading = text.splitlines()[0]
    before = page.read_text() if page.is_file() else '# Pre-training on your own images\n'
    parts = re.split(r'(?m)^(?=## )', before)
    kept = [part for part in parts if not part.startswith(f'{heading}\n')]
    index = next((k for k, part in enumerate(parts) if part.startswith(f'{heading}\n')), len(parts))
    kept.insert(index, text)
    write_text(page, '\n\n'.join(part.strip('\n') for part in kept) + '\n')


def main(argv: list[str] | None = None) -> None:
    """Measure, and write the section."""
    args = parse_args(argv)
    from addp_mm.config.config_file import load_config
    from addp_mm.config.paths import require_writable
    from addp_mm.errors import reported_in_words

    logging.disable(logging.WARNING)  # mmengine logs every weight that is loaded or frozen
    with reported_in_words():
        require_writable(args.out, '--out')
        cfg = load_config(args.ids)
        own = cfg.model.get('drop_ratio', 0.0)
        results = {drop: measure(args, drop) for drop in dict.fromkeys((own, 0.0))}
        write_section(args.out, section(args, results, cfg.train_dataloader.batch_size))
    for drop, pairs in results.items():
        print(
            f'drop ratio {drop}: {statistics.median(pair.ratio for pair in pairs):.2f} times as many steps per second'
        )
    print(f'wrote {args.out}')


if __name__ == '__main__':
    main()
