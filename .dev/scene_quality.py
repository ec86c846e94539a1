# Copyright (c) addp_mm contributors. Apache-2.0.
"""Measure generated FashionScenes: how many are all but empty, in how many a garment can be named.

    python .dev/scene_quality.py work_dirs/generated/images --data-root data/fashion_scenes

- A scene is all but empty if at most 2 % of its pixels differ from its median colour by more than
  50 of 255 levels (Euclidean distance in RGB).
- A garment is named if a classifier that was trained on the 20,000 real training scenes gives it a
  probability above 0.5. It is trained once, in two minutes on one free core, and kept in
  --work-dir. It has also seen warped scenes, of which it learned to name nothing.

The table has both shares with their 95 % confidence intervals. For comparison it also has those of
the real validation scenes, of the same scenes warped until their garments have no shape, and of
backgrounds without garments from the data set's generator. The classifier should name garments in
the first ones only. Below the table is how well it knows the garments of the validation scenes,
which it has not seen.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from garment_classifier import (
    BATCH_SIZE,
    Recipe,
    data_settings,
    garment_probabilities,
    scene_images,
    scene_targets,
    trained_classifier,
)
from torch import Tensor, nn
from warped_scenes import warped

from addp_mm.checkpoints.atomic_write import write_json
from addp_mm.cli_options import add_device_option, aligned
from addp_mm.config.paths import require_writable, require_writable_folder
from addp_mm.datasets.fashion.fashion_mnist import CLASSES, load_garments
from addp_mm.datasets.fashion.fashion_scenes import SceneGenerator
from addp_mm.engine.device import choose_device
from addp_mm.errors import exit_on_interrupt, exit_on_user_error
from addp_mm.evaluation import open_images
from addp_mm.evaluation.scene_content import COLOUR_DISTANCE, EMPTY_SHARE, is_empty

NAMED = 0.5
NUM_BACKGROUNDS = 1000


@dataclass(frozen=True)
class Share:
    """A share of images, with the 95 % confidence interval of Wilson (1927).

    Args:
        count: Images that are counted.
        total: All images.
    """

    count: int
    total: int

    @property
    def value(self) -> float:
        """The share, from 0 to 1."""
        return self.count / self.total

    @property
    def interval(self) -> tuple[float, float]:
        """Lower and upper limit of the confidence interval."""
        from scipy.stats import binomtest

        limits = binomtest(self.count, self.total).proportion_ci(method='wilson')
        return float(limits.low), float(limits.high)

    def text(self) -> str:
        """The share and its interval in percent."""
        low, high = self.interval
        return f'{self.value:.1%} ({low:.1%} to {high:.1%})'

    def as_dict(self) -> dict[str, Any]:
        """Content of the JSON file."""
        return dict(count=self.count, total=self.total, share=self.value, interval=list(self.interval))


@dataclass(frozen=True)
class SceneQuality:
    """Both shares of a set of images.

    Attributes:
        empty: Scenes that are all but empty.
        named: Scenes in which the classifier names at least one garment.
        garments: Number of scenes in which it names each garment.
    """

    empty: Share
    named: Share
    garments: dict[str, int]

    def as_dict(self) -> dict[str, Any]:
        """Content of the JSON file."""
        return dict(empty=self.empty.as_dict(), named=self.named.as_dict(), garments=self.garments)


@dataclass(frozen=True)
class ClassifierQuality:
    """How well the classifier knows the garments of scenes that it has not seen.

    Attributes:
        mean_average_precision: Mean of ``average_precision``, from 0 to 1.
        average_precision: That of each garment.
        precision: Share of the garments that it names which are in the scene.
        recall: Share of the garments in the scenes which it names.
    """

    mean_average_precision: float
    average_precision: dict[str, float]
    precision: float
    recall: float


def measure(batches: Iterable[np.ndarray], classifier: nn.Module) -> SceneQuality:
    """Both shares of batches of scenes, uint8 (B, H, W, 3)."""
    empty, named = [], []
    for images in batches:
        empty.append(is_empty(images))
        named.append((garment_probabilities(classifier, images) > NAMED).numpy())
    flags, garments = np.concatenate(empty), np.concatenate(named)
    return SceneQuality(
        Share(int(flags.sum()), len(flags)),
        Share(int(garments.any(1).sum()), len(flags)),
        dict(zip(CLASSES, garments.sum(0).tolist(), strict=True)),
    )


def quality_of(images: str | os.PathLike, classifier: nn.Module, img_size: int | None = None) -> SceneQuality:
    """Both shares of the images of a folder or of a .npz file.

    Args:
        images: See :func:`addp_mm.evaluation.open_images`.
        classifier: From :func:`garment_classifier.trained_classifier`.
        img_size: Side to which the images are resized: that of the scenes which the classifier
            knows. Defaults to None: no resizing.

    Raises:
        UserError: There are no images, or one cannot be read.
    """
    opened = open_images(images, img_size)
    found = measure(opened.batches(0, len(opened), BATCH_SIZE), classifier)
    opened.warn()
    return found


def backgrounds(img_size: int, count: int) -> Iterable[np.ndarray]:
    """Batches of backgrounds as in FashionScenes, without garments, uint8 (B, S, S, 3)."""
    generator = SceneGenerator(load_garments('val'), img_size, 'val')
    for start in range(0, count, BATCH_SIZE):
        yield np.stack([generator.background(index).image for index in range(start, min(start + BATCH_SIZE, count))])


def warped_batches(data_root: Path) -> Iterable[np.ndarray]:
    """Batches of validation scenes whose garments have lost their shapes, uint8 (B, S, S, 3)."""
    images, generator = scene_images(data_root, 'val'), torch.Generator().manual_seed(0)
    for batch in images.batches(0, len(images), BATCH_SIZE):
        bent = warped(torch.from_numpy(batch).permute(0, 3, 1, 2), generator)
        yield bent.permute(0, 2, 3, 1).contiguous().numpy()


def references(data_root: Path, classifier: nn.Module) -> dict[str, SceneQuality]:
    """Both shares of sets of which the answer is known."""
    return {
        'real validation scenes': quality_of(data_root / 'scenes/val', classifier),
        'the same, warped': measure(warped_batches(data_root), classifier),
        'backgrounds': measure(backgrounds(data_settings(data_root)['image_size'], NUM_BACKGROUNDS), classifier),
    }


def classifier_quality(data_root: Path, classifier: nn.Module) -> ClassifierQuality:
    """How well the classifier knows the garments of the validation scenes."""
    images, targets = scene_images(data_root, 'val'), scene_targets(data_root, 'val')
    batches = images.batches(0, len(images), BATCH_SIZE)
    return scored(torch.cat([garment_probabilities(classifier, batch) for batch in batches]), targets)


def scored(probabilities: Tensor, targets: Tensor) -> ClassifierQuality:
    """Compare probabilities (N, 10) with the garments that are there, (N, 10)."""
    from mmpretrain.evaluation import AveragePrecision, MultiLabelMetric

    precisions = AveragePrecision.calculate(probabilities, targets, average=None) / 100
    precision, recall, *_ = MultiLabelMetric.calculate(probabilities, targets, thr=NAMED, average='micro')
    return ClassifierQuality(
        precisions.mean().item(),
        dict(zip(CLASSES, precisions.tolist(), strict=True)),
        precision.item() / 100,
        recall.item() / 100,
    )


def table(rows: dict[str, SceneQuality]) -> str:
    """The table of the terminal."""
    head = ['', 'images', 'all but empty', 'a garment is named']
    cells = [[name, f'{one.named.total:,}', one.empty.text(), one.named.text()] for name, one in rows.items()]
    return aligned([head, *cells], numbers=True)


def sentence(known: ClassifierQuality) -> str:
    """How well the classifier knows real scenes, in words."""
    least = min(known.average_precision, key=known.average_precision.__getitem__)
    return (
        f'classifier on validation scenes: mean average precision {known.mean_average_precision:.3f} (lowest: '
        f'{least} {known.average_precision[least]:.3f}); of the garments that it names {known.precision:.1%} are '
        f'there, and it names {known.recall:.1%} of those that are there'
    )


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('images', nargs='+', help='folders of generated images, or .npz files with arr_0')
    parser.add_argument(
        '--data-root', type=Path, default=Path('data/fashion_scenes'), help='FashionScenes [%(default)s]'
    )
    parser.add_argument(
        '--work-dir',
        type=Path,
        default=Path('work_dirs/scene_quality'),
        help='folder for the weights of the classifier [%(default)s]',
    )
    parser.add_argument('--out', type=Path, metavar='FILE', help='write the results to this JSON file')
    add_device_option(parser)
    return parser.parse_args(argv)


def run(args: argparse.Namespace) -> None:
    """Measure all sets, and print and write the results."""
    if args.out:
        require_writable(args.out, '--out')
    require_writable_folder(args.work_dir, '--work-dir')
    size = data_settings(args.data_root)['image_size']
    for path in args.images:  # a wrong path is found before the training
        open_images(path, size)
    classifier = trained_classifier(args.data_root, args.work_dir, device=choose_device(args.device))
    known = classifier_quality(args.data_root, classifier)
    known_sets = references(args.data_root, classifier)
    found = {path: quality_of(path, classifier, size) for path in args.images}
    print(table(found | known_sets))
    print(sentence(known))
    if args.out:
        write_json(
            args.out,
            dict(
                images={path: one.as_dict() for path, one in found.items()},
                references={name: one.as_dict() for name, one in known_sets.items()},
                classifier=dict(asdict(known), recipe=asdict(Recipe())),
                definition=dict(colour_distance=COLOUR_DISTANCE, empty_share=EMPTY_SHARE, named=NAMED),
            ),
        )


def main(argv: Sequence[str] | None = None) -> None:
    """Run the script."""
    args = parse_args(argv)
    with exit_on_user_error(OSError), exit_on_interrupt('a finished classifier is kept; run the same command again'):
        run(args)


if __name__ == '__main__':
    main()
