# Copyright (c) addp_mm contributors. Apache-2.0.
"""Compare the speed of a predictor's training on stored ids and on images.

On images, each step tokenizes its batch. Both trainings take turns in one process, with the same
predictor, batch size and optimizer, so that other load of the machine affects both.
"""

from __future__ import annotations

import argparse
import logging
import statistics
import time
from collections.abc import Iterator
from dataclasses import dataclass

from addp_mm.cli_options import number
from addp_mm.report.machine import machine_class, versions

IMAGES = 'configs/pretrain/token-predictor_nano-p8_2xb16-fp32-8k_fashion-scenes-64px.py'
IDS = 'configs/pretrain/token-predictor_nano-p8_from-ids_2xb16-fp32-8k_fashion-scenes-64px.py'
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
    parser.add_argument('--steps', type=number(int, 1), default=20, metavar='N', help='steps in a turn [20]')
    parser.add_argument('--pairs', type=number(int, 1), default=5, metavar='N', help='turns of each training [5]')
    return parser.parse_args(argv)


@dataclass(frozen=True)
class Pair:
    """Steps per second of one turn on images and one turn on stored ids."""

    images: float
    ids: float

    @property
    def ratio(self) -> float:
        """Speed of the training on ids, divided by that on images."""
        return self.ids / self.images


class Training:
    """Model, optimizer and data of a config."""

    def __init__(self, cfg) -> None:
        import torch
        from mmengine.optim import build_optim_wrapper
        from mmengine.registry import init_default_scope
        from mmengine.runner import Runner

        from addp_mm.checkpoints.init_weights import init_weights
        from addp_mm.devices import default_device
        from addp_mm.registry import MODELS

        init_default_scope(cfg.default_scope)
        torch.manual_seed(0)
        self.model = MODELS.build(cfg.model)
        init_weights(self.model)
        self.device = default_device()
        self.model.to(self.device).train()
        self.optimizer = build_optim_wrapper(self.model, cfg.optim_wrapper)
        self.loader = Runner.build_dataloader(cfg.train_dataloader, seed=0)
        self.batches = self._endless()

    def _endless(self) -> Iterator[dict]:
        while True:
            yield from self.loader

    def steps_per_second(self, steps: int) -> float:
        """Run training steps; return the number of steps per second."""
        from addp_mm.devices import synchronize

        start = time.perf_counter()
        for _ in range(steps):
            self.model.train_step(next(self.batches), self.optimizer)
        synchronize(self.device)
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
    """Measure turns, after a few steps of each training that are not measured."""
    trainings = [Training(cfg) for cfg in configs(args, drop_ratio)]
    for training in trainings:
        training.steps_per_second(WARM_UP)
    pairs = []
    for turn in range(args.pairs):
        pairs.append(Pair(*(training.steps_per_second(args.steps) for training in trainings)))
        print(
            f'drop ratio {drop_ratio}, turn {turn + 1} of {args.pairs}: {pairs[-1].images:.2f} steps/s on images, '
            f'{pairs[-1].ids:.2f} on ids, ratio {pairs[-1].ratio:.2f}',
            flush=True,
        )
    return pairs


def row(drop_ratio: float, pairs: list[Pair]) -> str:
    """A line of the table: medians, and the range of the ratio."""
    images, ids, ratios = ([getattr(pair, key) for pair in pairs] for key in ('images', 'ids', 'ratio'))
    return (
        f'| {drop_ratio:g} | {statistics.median(images):.2f} | {statistics.median(ids):.2f} | '
        f'{statistics.median(ratios):.1f} ({min(ratios):.1f} to {max(ratios):.1f}) |'
    )


def main(argv: list[str] | None = None) -> None:
    """Measure, and print the table."""
    args = parse_args(argv)
    from addp_mm.config.config_file import load_config
    from addp_mm.errors import exit_on_interrupt, exit_on_user_error

    logging.disable(logging.WARNING)  # mmengine logs every weight that is loaded or frozen
    with exit_on_interrupt('nothing was written'), exit_on_user_error():
        own = load_config(args.ids).model.get('drop_ratio', 0.0)
        results = {drop: measure(args, drop) for drop in dict.fromkeys((own, 0.0))}
    print(f'{machine_class()}; {", ".join(f"{name} {version}" for name, version in versions().items())}')
    print('Medians of all turns; in brackets the smallest and largest ratio of two neighbouring turns.')
    print('| drop ratio of the encoder | on images, steps/s | on stored ids, steps/s | ratio |')
    print('|---|---|---|---|')
    for drop, pairs in results.items():
        print(row(drop, pairs))


if __name__ == '__main__':
    main()
