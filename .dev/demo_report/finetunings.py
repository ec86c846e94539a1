# Copyright (c) addp_mm contributors. Apache-2.0.
"""Short fine-tunings of a detector, from ADDP weights and from random weights."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from pathlib import Path

from mmengine.config import Config

from addp_mm.benchmark.data_folder import data_options
from addp_mm.benchmark.finetuning import FineTuning as Training
from addp_mm.benchmark.step import Step
from addp_mm.benchmark.tasks import TASKS
from addp_mm.report.logs import read_json
from demo_report.parts import ADDP_WEIGHTS, ROOT

MODEL = 'Mask R-CNN'
WEIGHTS = {'addp': 'ADDP weights', 'random': 'random weights'}
CONFIGS = {
    weights: Path(f'configs/det/mask-rcnn_addp-vit-nano-p8_{part}_1xb16-fp32-300i_fashion-scenes-64px.py')
    for weights, part in (('addp', 'ft'), ('random', 'from-scratch'))
}


@dataclass(frozen=True)
class FineTuning:
    """One fine-tuning of the detector.

    Args:
        weights: 'addp' or 'random'.
        folder: Its work dir, relative to the repository. The training is in ``train``, the test in
            ``test``.
        data_root: Folder of FashionScenes, relative to the repository.
        max_iters: Iterations. Defaults to None: those of the config.
        seed: Seed of the head, the data order and the augmentation, and of a random backbone.
            Defaults to 0.
    """

    weights: str
    folder: Path
    data_root: Path
    max_iters: int | None = None
    seed: int = 0

    @property
    def config(self) -> Path:
        """The config that starts from ``weights``."""
        return CONFIGS[self.weights]

    @property
    def iterations(self) -> int:
        """Iterations of the training."""
        return self.max_iters or load_config(self.config).train_cfg.max_iters

    @property
    def training(self) -> Training:
        """The training and its test."""
        train_options, test_options = (
            data_options(load_config(self.config), self.data_root, splits) for splits in (('train', 'val'), ('test',))
        )
        if self.max_iters:
            train_options += [f'train_cfg.max_iters={self.max_iters}', 'default_hooks.logger.interval=1']
        return Training(
            f'{MODEL} from {WEIGHTS[self.weights]}',
            self.config,
            TASKS['det'].metrics,
            self.seed,
            self.folder,
            f'iter_{self.iterations}.pth',
            tuple(train_options),
            tuple(test_options),
            (self.data_root / 'fashion_scenes.json', *((ADDP_WEIGHTS,) if self.weights == 'addp' else ())),
        )

    def steps(self, after: tuple[Step, ...] = ()) -> tuple[Step, Step]:
        """The training, and the test of its last checkpoint."""
        return self.training.steps(after)

    def results(self) -> dict[str, float]:
        """Each metric in percent, by title."""
        return self.training.results()

    def curve(self) -> list[tuple[int, float]]:
        """Training loss by iteration."""
        return self.training.curve()

    def schedule(self) -> str:
        """Iterations, batch size and training images, as text."""
        images = read_json(ROOT / self.data_root / 'fashion_scenes.json')['train']
        batch_size = load_config(self.config).train_dataloader.batch_size
        return f'{self.iterations:,} iterations, batch {batch_size}, {images:,} training scenes'


@cache
def load_config(path: Path) -> Config:
    """A config of this repository, merged with its bases."""
    return Config.fromfile(ROOT / path)
