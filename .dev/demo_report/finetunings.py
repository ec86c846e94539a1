# Copyright (c) addp_mm contributors. Apache-2.0.
"""Fine-tunings on three tasks, each from ADDP weights and from random weights."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from mmengine.config import Config

from addp_mm.benchmark.data_folder import data_options
from addp_mm.benchmark.finetuning import FineTuning as Training
from addp_mm.benchmark.step import Step
from addp_mm.benchmark.tasks import TASKS as TASKS_OF_THE_BENCHMARK
from addp_mm.benchmark.tasks import Metric

ROOT = Path(__file__).resolve().parents[2]
ASSETS = Path('addp_mm/assets')
ADDP_WEIGHTS = ASSETS / 'addp_nano-p8.safetensors'
WEIGHTS = {'addp': 'ADDP weights', 'random': 'random weights'}


@dataclass(frozen=True)
class Task:
    """A downstream task: its configs, and the path of the predictions to draw."""

    name: str
    model: str
    config_name: str
    prediction_option: str = ''
    prediction_path: str = ''

    @property
    def title(self) -> str:
        """Its name in tables."""
        return TASKS_OF_THE_BENCHMARK[self.name].title

    @property
    def metrics(self) -> tuple[Metric, ...]:
        """Its metrics."""
        return TASKS_OF_THE_BENCHMARK[self.name].metrics

    def config(self, weights: str) -> Path:
        """The nano config of this task that starts from ``weights``."""
        return Path('configs', self.name, self.config_name.format('ft' if weights == 'addp' else 'from-scratch'))


TASKS = (
    Task('cls', 'ViT classifier', 'addp-vit-nano-p8_{}_1xb32-fp32-300i_fashion-scenes-64px.py'),
    Task(
        'det',
        'Mask R-CNN',
        'mask-rcnn_addp-vit-nano-p8_{}_1xb16-fp32-300i_fashion-scenes-64px.py',
        'test_evaluator.outfile_prefix',
        'predictions',
    ),
    Task(
        'seg',
        'UperNet',
        'upernet_addp-vit-nano-p8_{}_1xb16-fp32-400i_fashion-scenes-64px.py',
        'test_evaluator.output_dir',
        'labels',
    ),
)


@dataclass(frozen=True)
class FineTuning:
    """One fine-tuning.

    Args:
        task: One of ``TASKS``.
        weights: 'addp' or 'random'.
        seed: Seed of the head, the data order and the augmentation, and of a random backbone.
        folder: Its work dir, relative to the repository. The training is in ``train``, the test in
            ``test``.
        data_root: Folder of FashionScenes. Defaults to None: that of the config.
        max_iters: Iterations. Defaults to None: those of the config.
    """

    task: Task
    weights: str
    seed: int
    folder: Path
    data_root: Path | None = None
    max_iters: int | None = None

    @property
    def title(self) -> str:
        """Model and weights, as text."""
        return f'{self.task.model} from {WEIGHTS[self.weights]}'

    @property
    def predictions(self) -> Path:
        """Path of the predictions."""
        return self.folder / 'test' / self.task.prediction_path

    @property
    def iterations(self) -> int:
        """Iterations of the training."""
        return self.max_iters or load_config(self.task.config(self.weights)).train_cfg.max_iters

    @property
    def training(self) -> Training:
        """The training and its test."""
        config = self.task.config(self.weights)
        train_options, test_options = self._data_options('train', 'val'), self._data_options('test')
        if self.max_iters:
            train_options += [f'train_cfg.max_iters={self.max_iters}', 'default_hooks.logger.interval=1']
        if self.task.prediction_option:
            test_options.append(f'{self.task.prediction_option}={self.predictions}')
        return Training(
            self.title,
            config,
            self.task.metrics,
            self.seed,
            self.folder,
            f'iter_{self.iterations}.pth',
            tuple(train_options),
            tuple(test_options),
            (self._manifest, *((ADDP_WEIGHTS,) if self.weights == 'addp' else ())),
        )

    def steps(self, after: tuple[Step, ...] = ()) -> tuple[Step, Step]:
        """The training, and the test of its last checkpoint."""
        return self.training.steps(after)

    def results(self) -> dict[str, float]:
        """Each metric of the task in percent, by title."""
        return self.training.results()

    def curve(self) -> list[tuple[int, float]]:
        """Training loss by iteration."""
        return self.training.curve()

    @property
    def _manifest(self) -> Path:
        """The manifest, which identifies the version of the scenes; relative to the repository."""
        loader = load_config(self.task.config(self.weights)).train_dataloader
        return Path(self.data_root or loader.dataset.data_root) / 'fashion_scenes.json'

    def _data_options(self, *splits: str) -> list[str]:
        if self.data_root is None:
            return []
        return data_options(load_config(self.task.config(self.weights)), self.data_root, splits)

    def schedule(self) -> dict[str, int]:
        """``iterations``, ``batch_size`` and the number of training ``images``."""
        loader = load_config(self.task.config(self.weights)).train_dataloader
        manifest = json.loads((ROOT / self._manifest).read_text())
        images = manifest['objects_train' if self.task.name == 'cls' else 'train']
        subset = loader.dataset.get('indices')
        if subset is not None:
            images = min(images, subset if isinstance(subset, int) else len(subset))
        return dict(iterations=self.iterations, batch_size=loader.batch_size, images=images)


@cache
def load_config(path: Path) -> Config:
    """A config of this repository, merged with its bases."""
    return Config.fromfile(ROOT / path)


def finetunings(
    folder: Path, seeds: Sequence[int], data_root: Path | None = None, max_iters: int | None = None
) -> list[FineTuning]:
    """Six fine-tunings for each seed: three tasks, ADDP and random weights.

    Args:
        folder: Work dir, relative to the repository. Each run has a folder in it.
        seeds: Seeds.
        data_root: Folder of FashionScenes. Defaults to None: that of the configs.
        max_iters: Iterations. Defaults to None: those of the configs.
    """
    return [
        FineTuning(task, weights, seed, Path(folder) / f'{task.name}_{weights}_seed{seed}', data_root, max_iters)
        for seed in seeds
        for task in TASKS
        for weights in WEIGHTS
    ]
