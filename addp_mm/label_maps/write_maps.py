# Copyright (c) addp_mm contributors. Apache-2.0.
"""Write the label maps of a list of images, file by file."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader

from addp_mm.datasets.listed.broken_images import BROKEN_ALLOWANCE, num_allowed
from addp_mm.datasets.token_labels.label_map import LabelMapError
from addp_mm.datasets.token_labels.map_folder import MapFolder
from addp_mm.errors import first_few
from addp_mm.label_maps.dense_classifier import DenseClassifier
from addp_mm.label_maps.folder_classes import label_of_folder
from addp_mm.label_maps.image_squares import ImageSquares, collate
from addp_mm.processes import worker_context


@dataclass
class Written:
    """What a run has written.

    Attributes:
        images: Number of images.
        broken: Name and reason of each image that could not be read.
        labelled: Number of images whose folder is a class.
        agreeing: Number of those whose map has this class as its best one on average.
    """

    images: int = 0
    broken: list[tuple[str, str]] = field(default_factory=list)
    labelled: int = 0
    agreeing: int = 0


class MapWriter:
    """Writes files of label maps that do not exist yet.

    Args:
        store: The folder.
        images: A dataset with ``get_data_info``.
        order: The number in the dataset of each name in the store, in the store's order.
        classifier: The classifier, on its device.
        image_size: Side of the squares that the classifier sees, in pixels.
        batch_size: Images in a batch.
        num_workers: Processes that read images; 0 for this one.
        amp: Whether the classifier runs in bfloat16.
        classes: The class of each folder, if images are in folders of their class. Defaults to
            None.
        max_broken_share: Share of the images that may be broken, in addition to ten. Defaults to
            0.01.
    """

    def __init__(
        self,
        store: MapFolder,
        images: Any,
        order: Sequence[int],
        classifier: DenseClassifier,
        image_size: int,
        batch_size: int,
        num_workers: int,
        amp: bool,
        classes: Mapping[str, int] | None = None,
        max_broken_share: float = 0.01,
    ) -> None:
        self.store, self.images, self.order, self.classifier = store, images, order, classifier
        self.image_size, self.batch_size, self.num_workers, self.amp = image_size, batch_size, num_workers, amp
        self.classes = classes or {}
        self.max_broken_share = max_broken_share
        self.written = Written()

    def write(self, numbers: Sequence[int], advance: Callable[[int], object]) -> Written:
        """Write files.

        Args:
            numbers: Numbers of the files.
            advance: Called with the number of images after each batch.

        Raises:
            LabelMapError: Too many images cannot be read.
        """
        for number in numbers:
            scores, classes = [], []
            for best, ids in self._file(number, advance):
                scores.append(best)
                classes.append(ids)
            self.store.write(number, torch.cat(scores), torch.cat(classes))
        return self.written

    @torch.inference_mode()
    def _file(self, number: int, advance: Callable[[int], object]) -> Iterator[tuple[Tensor, Tensor]]:
        """Best scores and classes of each batch of a file, (B, K, h, w), on the CPU."""
        rows = self.store.rows(number)
        loader = DataLoader(
            ImageSquares(self.images, [self.order[row] for row in rows], self.image_size),
            self.batch_size,
            num_workers=self.num_workers,
            collate_fn=collate,
            multiprocessing_context=worker_context() if self.num_workers else None,
        )
        first = rows.start
        for images, reasons in loader:
            probabilities = probabilities_of(self.classifier, images, self.amp)
            scores, classes = probabilities.topk(self.store.about['top_k'], 1)
            scores, classes = scores.cpu(), classes.cpu()
            self._count(first, probabilities.mean((2, 3)).argmax(1).tolist(), reasons)
            for k, reason in enumerate(reasons):
                if reason is not None:
                    scores[k], classes[k] = 0, -1
            first += len(images)
            advance(len(images))
            yield scores, classes

    def _count(self, first: int, best: Sequence[int], reasons: Sequence[str | None]) -> None:
        for k, reason in enumerate(reasons):
            name = self.store.names[first + k].decode('utf-8', 'surrogateescape')
            label = label_of_folder(name, self.classes)
            if reason is not None:
                self.written.broken.append((name, reason))
            elif label is not None:
                self.written.labelled += 1
                self.written.agreeing += best[k] == label
        self.written.images += len(reasons)
        found = [name for name, _ in self.written.broken]
        if len(found) > num_allowed(self.max_broken_share, len(self.order)):
            raise LabelMapError(
                f'{len(found)} of {self.written.images:,} images cannot be read, more than --max-broken-share '
                f'{self.max_broken_share} and {BROKEN_ALLOWANCE} more: {first_few(found)}. Repair or remove them, or '
                'allow more'
            )


def probabilities_of(classifier: DenseClassifier, images: Tensor, amp: bool) -> Tensor:
    """Probabilities of all classes at each position, float32 (B, C, h, w).

    Args:
        classifier: The classifier, on its device.
        images: uint8 (B, 3, S, S), RGB.
        amp: Whether the classifier runs in bfloat16.
    """
    device = next(classifier.parameters()).device
    with torch.autocast(device.type, torch.bfloat16, enabled=amp):
        logits = classifier(images.to(device, non_blocking=True).float())
    return logits.float().softmax(1)
