# Copyright (c) addp_mm contributors. Apache-2.0.
"""A training of a config with one seed, and the test of its last checkpoint."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from addp_mm.benchmark.step import Step
from addp_mm.benchmark.tasks import Metric
from addp_mm.report.logs import LogError, read_curve, read_json

# tools/test.py tests instead of the training
_NO_VALIDATION = 'train_cfg.val_begin=1000000'


@dataclass(frozen=True)
class FineTuning:
    """One training and its test.

    Args:
        title: Describes the model to the user.
        config: The config.
        metrics: Metrics of the test.
        seed: Seed of the head, the data order and the augmentation, and of random weights.
        folder: Its work dir. The training is in ``train``, the test in ``test``.
        checkpoint_name: Name of the last checkpoint, such as ``'iter_300.pth'``.
        train_options: Options of the config in training. Defaults to (): none.
        test_options: Options of the config in the test. Defaults to (): none.
        inputs: Files on which the training depends, besides the config. Defaults to (): none.
    """

    title: str
    config: Path
    metrics: Sequence[Metric]
    seed: int
    folder: Path
    checkpoint_name: str
    train_options: tuple[str, ...] = ()
    test_options: tuple[str, ...] = ()
    inputs: tuple[Path, ...] = ()

    @property
    def metrics_file(self) -> Path:
        """The file that the test writes."""
        return self.folder / 'test/metrics.json'

    def steps(self, after: tuple[Step, ...] = ()) -> tuple[Step, Step]:
        """The training, and the test of its last checkpoint.

        Args:
            after: Steps that the training needs. Defaults to (): none.
        """
        config, name, title = str(self.config), self.folder.name, f'{self.title}, seed {self.seed}'
        train_dir, test_dir = self.folder / 'train', self.metrics_file.parent
        checkpoint = train_dir / self.checkpoint_name
        train_options = ('--cfg-options', _NO_VALIDATION, *self.train_options)
        train = Step(
            f'{name}_train',
            f'Train {title}',
            ('tools/train.py', config, '--work-dir', str(train_dir), '--seed', str(self.seed), *train_options),
            outputs=(checkpoint,),
            inputs=self.inputs,
            after=after,
            folder=train_dir,
            configs=(self.config,),
            resume=('--resume',),
        )
        test_options = ('--cfg-options', *self.test_options) if self.test_options else ()
        where = ('--work-dir', str(test_dir), '--out', str(self.metrics_file))
        test = Step(
            f'{name}_test',
            f'Test {title}',
            ('tools/test.py', config, str(checkpoint), *where, *test_options),
            outputs=(self.metrics_file,),
            after=(train,),
            folder=test_dir,
            configs=(self.config,),
        )
        return train, test

    def results(self) -> dict[str, float]:
        """Each metric in percent, by title.

        Raises:
            LogError: The test did not write a metric.
        """
        return read_metrics(self.metrics_file, self.metrics)

    def curve(self) -> list[tuple[int, float]]:
        """Training loss by iteration."""
        return read_curve(self.folder / 'train')


def read_metrics(file: Path, metrics: Sequence[Metric]) -> dict[str, float]:
    """Metrics of a test in percent, by title.

    Args:
        file: The file that tools/test.py wrote.
        metrics: Which ones.

    Raises:
        LogError: The file is missing, or has not all of them.
    """
    written = read_json(file)
    values = {}
    for metric in metrics:
        value = written.get(metric.key, metric.if_empty)
        if value is None:
            raise LogError(f'{file} has no {metric.key}; it has {", ".join(written) or "nothing"}')
        values[metric.title] = float(value) * metric.factor
    return values
