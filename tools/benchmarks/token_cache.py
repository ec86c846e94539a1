# Copyright (c) addp_mm contributors. Apache-2.0.
"""How much faster a predictor trains on stored ids than on images that are tokenized in each step.

Both trainings run in turns in one process, with the same predictor, batch size and optimizer, so
that whatever else the machine does slows both. The result goes into a section of a page of
benchmarks.
"""

from __future__ import annotations

import argparse
import logging
import re
import statistics
import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date
from pathlib import Path

TOOLS = Path(__file__).resolve().parents[1]

from addp_mm.checkpoints.atomic_write import write_text  # noqa: E402
from addp_mm.report.machine import machine_class, versions  # noqa: E402

IMAGES = 'configs/pretrain/token-predictor_nano-p8_2xb16-fp32-8k_fashion-scenes-64px.py'
IDS = 'configs/pretrain/token-predictor_nano-p8_from-ids_2xb16-fp32-8k_fashion-scenes-64px.py'
PAGE, HEADING = Path('docs/benchmarks/own_data.md'), '## Predictor from stored ids'
WARM_UP = 3


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--images', default=IMAGES, metavar='CONFIG', help='trains on images [the nano predictor]')
    parser.add_argument('--ids', default=IDS, metavar='CONFIG', help='trains on stored ids [the nano predictor]')
    parser.add_argument('--tokens', metavar='FOLDER', help="the stored ids [the config's]")
    parser.add_argument('--steps', type=int, default=20, metavar='N', help='steps of a turn [20]')
    parser.add_argument('--pairs', type=int, default=5, metavar='N', help='turns of each training [5]')
    parser.add_argument('--out', type=Path, default=PAGE, help=f'page whose section is written [{PAGE}]')
    args = parser.parse_args(argv)
    if args.steps < 1 or args.pairs < 1:
        parser.error('--steps and --pairs must be at least 1')
    return args


@dataclass(frozen=True)
class Pair:
    """Steps a second of one turn each: on images and on stored ids."""

    images: float
    ids: float

    @property
    def ratio(self) -> float:
        return self.ids / self.images


class Training:
    """Training steps of a config's model on its data, one after the other."""

    def __init__(self, cfg) -> None:
        import torch
        from mmengine.optim import build_optim_wrapper
        from mmengine.registry import init_default_scope
        from mmengine.runner import Runner

        from addp_mm.registry import MODELS

        init_default_scope(cfg.default_scope)
        torch.manual_seed(0)
        self.model = MODELS.build(cfg.model)
        self.model.init_weights()
        self.device = torch.device('cuda' if torch.cuda.is_available() else 'cpu')
        self.model.to(self.device).train()
        self.optimizer = build_optim_wrapper(self.model, cfg.optim_wrapper)
        self.loader = Runner.build_dataloader(cfg.train_dataloader, seed=0)
        self.batches = self._endless()

    def _endless(self) -> Iterator[dict]:
        while True:
            yield from self.loader

    def steps_per_second(self, steps: int) -> float:
        import torch

        start = time.perf_counter()
        for _ in range(steps):
            self.model.train_step(next(self.batches), self.optimizer)
        if self.device.type == 'cuda':
            torch.cuda.synchronize()
        return steps / (time.perf_counter() - start)


def configs(args: argparse.Namespace, drop_ratio: float):
    """Both configs, with one predictor and one loss; they differ in where the ids come from."""
    from addp_mm.config.config_file import ConfigError, load_config

    images, ids = load_config(args.images), load_config(args.ids)
    if images.train_dataloader.batch_size != ids.train_dataloader.batch_size:
        raise ConfigError(f'{args.images} and {args.ids} have other batch sizes: the comparison would mean nothing')
    ids.model.drop_ratio = drop_ratio
    if args.tokens:
        ids.train_dataloader.dataset.data_root = args.tokens
    own = {key: images.model[key] for key in ('tokenizer', 'data_preprocessor')}
    images.model = {**ids.model, **own}
    images.optim_wrapper = ids.optim_wrapper
    return images, ids


def measure(args: argparse.Namespace, drop_ratio: float) -> list[Pair]:
    """Take turns; the first steps of each training do not count."""
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
    return '\n'.join(
        [
            HEADING,
            '',
            f'Written by `tools/benchmarks/token_cache.py` on {date.today().isoformat()}: training steps a second of one '
            f'process, batch {batch_size}, on images that the frozen tokenizer encodes in each step and on ids that '
            '`tools/dataset_converters/tokenize_images.py` wrote before. '
            f'Medians of {args.pairs} turns of {args.steps} steps of each, in alternation; in brackets the smallest and '
            'largest ratio of two neighbouring turns.',
            '',
            '| predictor | on images, steps/s | on stored ids, steps/s | ratio |',
            '|---|---|---|---|',
            *(row(names[drop], pairs) for drop, pairs in results.items()),
            '',
            'What is saved is the time of the tokenizer and of reading and cropping images; how much of a step that is '
            'depends on the sizes of tokenizer and predictor, so measure your own with `--images` and `--ids`.',
            '',
            f'Measured with {machine_class()}'
            + ('. ' if 'no GPU' not in machine_class() else '; not measured on a GPU. ')
            + ', '.join(f'{name} {version}' for name, version in versions().items())
            + '.',
            '',
            '```bash',
            f'python tools/benchmarks/token_cache.py{options} --pairs {args.pairs} --steps {args.steps}',
            '```',
            '',
        ]
    )


def write_section(page: Path, text: str) -> None:
    """Put a section into a page, in place of the one with its heading, else at the end."""
    heading = text.splitlines()[0]
    before = page.read_text() if page.is_file() else "# Pre-training on one's own images\n"
    parts = re.split(r'(?m)^(?=## )', before)
    kept = [part for part in parts if not part.startswith(f'{heading}\n')]
    place = next((k for k, part in enumerate(parts) if part.startswith(f'{heading}\n')), len(parts))
    kept.insert(place, text)
    write_text(page, '\n\n'.join(part.strip('\n') for part in kept) + '\n')


def main(argv: list[str] | None = None) -> None:
    args = parse_args(argv)
    from addp_mm.config.config_file import load_config
    from addp_mm.config.paths import require_writable
    from addp_mm.errors import reported_in_words

    logging.disable(logging.WARNING)  # mmengine names every weight that is loaded or frozen
    with reported_in_words():
        require_writable(args.out, '--out')
        cfg = load_config(args.ids)
        own = cfg.model.get('drop_ratio', 0.0)
        results = {drop: measure(args, drop) for drop in dict.fromkeys((own, 0.0))}
        write_section(args.out, section(args, results, cfg.train_dataloader.batch_size))
    for drop, pairs in results.items():
        print(f'drop ratio {drop}: {statistics.median(pair.ratio for pair in pairs):.2f} times as many steps a second')
    print(f'wrote {args.out}')


if __name__ == '__main__':
    main()
