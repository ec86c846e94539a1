# Copyright (c) addp_mm contributors. Apache-2.0.
"""Classification by a weighted vote of the nearest neighbours, and its accuracy."""

from __future__ import annotations

from collections.abc import Sequence

import torch.nn.functional as F
from mmengine.evaluator import BaseMetric
from torch import Tensor

from addp_mm.registry import METRICS


def nearest(queries: Tensor, bank: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """Find the ``k`` rows of a bank with the largest inner product.

    The search is exact; all (B, N) products are in memory.

    Args:
        queries: (B, C).
        bank: (N, C), N at least k.
        k: Number of neighbours.

    Returns:
        Products in descending order, (B, k), and the indices of their rows, (B, k).

    Raises:
        ValueError: k is not in [1, N].
    """
    if not 1 <= k <= len(bank):
        raise ValueError(f'the number of neighbours must be in [1, {len(bank)}], the size of the bank; got {k}')
    values, rows = (queries @ bank.t()).topk(k, dim=1)
    return values, rows


def neighbour_votes(similarities: Tensor, labels: Tensor, num_classes: int, temperature: float) -> Tensor:
    """Votes for each class, weighted by exp(similarity / temperature).

    Source: arXiv 1805.01978, used by DINO (arXiv 2104.14294).

    Args:
        similarities: Cosines to the neighbours, (B, k).
        labels: Classes of the neighbours, (B, k), int64.
        num_classes: Number of classes.
        temperature: Temperature of the softmax over the neighbours, positive.

    Returns:
        (B, num_classes); each row sums to 1.
    """
    weights = (similarities / temperature).softmax(1)
    return weights.new_zeros(len(weights), num_classes).scatter_add_(1, labels, weights)


class NeighbourBank:
    """Labelled features that vote on the class of other features.

    Args:
        features: (N, C); they are normalised to length 1.
        labels: (N), int64.
        num_classes: Number of classes. Defaults to None: the largest label plus 1.
        temperature: Temperature of the votes. Defaults to 0.07.

    Example:
        >>> bank = NeighbourBank(torch.eye(3), torch.tensor([0, 1, 1]))
        >>> bank.votes(torch.tensor([[0., 2., 1.]]), [2])[2]
        tensor([[0., 1.]])
    """

    def __init__(
        self, features: Tensor, labels: Tensor, num_classes: int | None = None, temperature: float = 0.07
    ) -> None:
        self.features = F.normalize(features, dim=1)
        self.labels = labels
        self.num_classes = num_classes or int(labels.max()) + 1
        self.temperature = temperature

    def __len__(self) -> int:
        return len(self.features)

    def votes(self, features: Tensor, num_neighbours: Sequence[int]) -> dict[int, Tensor]:
        """Votes for each class, for several numbers of neighbours.

        Args:
            features: (B, C); they are normalised to length 1.
            num_neighbours: Numbers of neighbours that vote.

        Returns:
            Votes (B, num_classes) by number of neighbours.
        """
        queries = F.normalize(features, dim=1).to(self.features)
        similarities, rows = nearest(queries, self.features, max(num_neighbours))
        labels = self.labels[rows]
        return {
            k: neighbour_votes(similarities[:, :k], labels[:, :k], self.num_classes, self.temperature)
            for k in num_neighbours
        }


@METRICS.register_module()
class NeighbourAccuracy(BaseMetric):
    """Accuracy of nearest-neighbour classification, in percent.

    Reads ``gt_label`` and ``neighbour_votes`` of each prediction, which
    :class:`addp_mm.NearestNeighbourTestLoop` writes.

    Args:
        topk: A sample is correct if its label is among this many classes with the most votes. A
            class without a vote is never correct. Defaults to (1,).
        collect_device: See :class:`mmengine.evaluator.BaseMetric`. Defaults to 'cpu'.
        prefix: See :class:`mmengine.evaluator.BaseMetric`. Defaults to None.
    """

    default_prefix = 'knn'

    def __init__(self, topk: Sequence[int] = (1,), collect_device: str = 'cpu', prefix: str | None = None) -> None:
        super().__init__(collect_device, prefix)
        self.topk = tuple(topk)

    def process(self, data_batch: dict, data_samples: Sequence[dict]) -> None:  # noqa: ARG002  # mmengine's signature
        """Keep for each sample, k and top-k whether the votes are correct."""
        for sample in data_samples:
            found = {}
            for k, votes in sample['neighbour_votes'].items():
                own = votes[int(sample['gt_label'])]
                ahead = int((votes > own).sum())
                found.update({f'k{k}_top{top}': bool(own > 0) and ahead < top for top in self.topk})
            self.results.append(found)

    def compute_metrics(self, results: list[dict[str, bool]]) -> dict[str, float]:
        """Average the samples."""
        return {name: 100 * sum(result[name] for result in results) / len(results) for name in results[0]}
