# Copyright (c) addp_mm contributors. Apache-2.0.
"""Test frozen features by their nearest neighbours."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from mmengine import dist
from mmengine.runner import TestLoop
from torch import Tensor
from tqdm import tqdm

from addp_mm.engine.unwrap import bare_model
from addp_mm.evaluation.nearest_neighbours import NeighbourBank
from addp_mm.registry import LOOPS


@LOOPS.register_module()
class NearestNeighbourTestLoop(TestLoop):
    """Classify test images by a weighted vote of the nearest labelled images.

    This is the k-NN protocol of DINO (arXiv 2104.14294). The features come from the model's
    ``extract_feat``; nothing is trained. One process computes the features of each labelled image;
    then every process has all of them in memory (1.3 million features of 768 numbers in float32: 4
    GB, and twice that while they are collected). Each predicted sample gets ``neighbour_votes``,
    ``{k: (num_classes, )}``, which :class:`addp_mm.NeighbourAccuracy` reads, and the votes of the
    first k as ``pred_score``.

    Args:
        runner: The runner.
        dataloader: Loader of the test images, or its config.
        evaluator: Evaluator, or its config.
        bank_dataloader: Config of the loader of the labelled images, with a test pipeline.
            The loop replaces its sampler: all images in order, each once.
        num_neighbours: Numbers of voting neighbours; each is evaluated. Defaults to (10, 20).
        temperature: Temperature of the votes' weights. Defaults to 0.07.
        num_classes: Number of classes. Defaults to None: inferred from the largest label.
        bank_device: Device of the labelled features and of the comparison: 'cpu' if they do not fit
            into the GPU. Defaults to None: the model's device.
        fp16: As in :class:`mmengine.runner.TestLoop`. Defaults to False.

    Raises:
        ValueError: ``num_neighbours`` is empty or has a number below 1, or features are not
            vectors.
    """

    def __init__(
        self,
        runner,
        dataloader,
        evaluator,
        bank_dataloader: dict,
        num_neighbours: Sequence[int] = (10, 20),
        temperature: float = 0.07,
        num_classes: int | None = None,
        bank_device: str | None = None,
        fp16: bool = False,
    ) -> None:
        super().__init__(runner, dataloader, evaluator, fp16)
        if not num_neighbours or min(num_neighbours) < 1:
            raise ValueError(f'num_neighbours must be numbers of at least 1, got {tuple(num_neighbours)}')
        own_sampler = dict(type='mmengine.DefaultSampler', shuffle=False, round_up=False)
        self.bank_dataloader = runner.build_dataloader(
            {**bank_dataloader, 'sampler': own_sampler, 'drop_last': False}, seed=0
        )
        self.num_neighbours = tuple(num_neighbours)
        self.temperature = temperature
        self.num_classes = num_classes
        self.bank_device = bank_device
        self.bank: NeighbourBank

    def run(self) -> dict:
        """Collect the labelled features, then test. Returns the metrics."""
        self.runner.model.eval()
        self.bank = self._make_bank()
        return super().run()

    @torch.no_grad()
    def run_iter(self, idx: int, data_batch: dict | Sequence[dict]) -> None:
        """Predict one batch and pass it to the evaluator."""
        self.runner.call_hook('before_test_iter', batch_idx=idx, data_batch=data_batch)
        features, samples = self._extract(data_batch)
        votes = self.bank.votes(features.to(self.bank.features.device), self.num_neighbours)
        for row, sample in enumerate(samples):
            own = {k: votes[k][row] for k in self.num_neighbours}
            sample.set_field(own, 'neighbour_votes')
            score = own[self.num_neighbours[0]]
            sample.set_pred_score(score).set_pred_label(score.argmax())
        self.evaluator.process(data_samples=samples, data_batch=data_batch)
        self.runner.call_hook('after_test_iter', batch_idx=idx, data_batch=data_batch, outputs=samples)

    @torch.no_grad()
    def _make_bank(self) -> NeighbourBank:
        features, labels = [], []
        bank = tqdm(
            self.bank_dataloader,
            desc='features of the labelled images',
            unit='batch',
            disable=not dist.is_main_process(),
        )
        for batch in bank:
            own, samples = self._extract(batch)
            features.append(own.to(self.bank_device or own.device))
            labels.append(torch.tensor([int(sample.gt_label) for sample in samples], device=features[-1].device))
        size = len(self.bank_dataloader.dataset)
        return NeighbourBank(
            gather_rows(torch.cat(features), size),
            gather_rows(torch.cat(labels), size),
            self.num_classes,
            self.temperature,
        )

    def _extract(self, batch) -> tuple[Tensor, list]:
        """Features (B, C) in float32 and data samples of a batch of the loader."""
        model = bare_model(self.runner)
        data = model.data_preprocessor(batch, False)
        with torch.autocast(data['inputs'].device.type, enabled=self.fp16):
            features = model.extract_feat(data['inputs'])
        features = features[-1] if isinstance(features, (tuple, list)) else features
        if features.dim() != 2:
            raise ValueError(
                f'k-NN needs one vector per image; extract_feat gives {tuple(features.shape)}. Give the '
                "backbone out_type='cls_token' or 'avg_featmap', or the model "
                "neck=dict(type='GlobalAveragePooling')"
            )
        return features.float(), data['data_samples']


def gather_rows(rows: Tensor, size: int) -> Tensor:
    """All processes' rows in the order of the dataset.

    Args:
        rows: Rows of the images rank, rank + world size, … of this process, shape (n, ...).
        size: Number of images of all processes, N.

    Returns:
        (N, ...), on the device of ``rows``, the same in every process.
    """
    world_size = dist.get_world_size()
    if world_size == 1:
        return rows
    device = rows.device
    most = -(-size // world_size)
    padded = rows.new_zeros(most, *rows.shape[1:])
    padded[: len(rows)] = rows
    return torch.stack(dist.all_gather(padded), dim=1).flatten(0, 1)[:size].to(device)
