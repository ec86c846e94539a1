# Copyright (c) addp_mm contributors. Apache-2.0.
"""Check that images of several sizes can form a batch, before training starts."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from mmengine.dataset import DefaultSampler, InfiniteSampler
from mmengine.model import BaseModel
from mmengine.runner import Runner
from torch.utils.data import BatchSampler, DataLoader, IterableDataset, RandomSampler, SequentialSampler

from addp_mm.checks.before_training import PreflightError
from addp_mm.checks.image_folders import spread
from addp_mm.checks.image_reading import upright_size_in_time
from addp_mm.datasets.samplers.resumable_sampler import ResumableInfiniteSampler
from addp_mm.datasets.samplers.seeded_batches import SeededBatches
from addp_mm.randomness import random_states_kept

_MOST = 6  # images in the tried batch
_MAX_SIZES = 2000  # images whose size is read


def check_mixed_sizes(runner: Runner, model: BaseModel) -> None:
    """Check that images of different sizes leave the pipelines in shapes that form a batch.

    Of the training data, it tries one batch of the smallest, the largest, the widest and the
    highest image. If a loader reads images in order, it tries a batch that has several sizes.
    Loaders whose sampler forms the batches by rules of its own are not checked.

    Args:
        runner: The runner, built.
        model: Its model without a wrapper.

    Raises:
        PreflightError: The images do not form a batch. The message names a file of each size.
    """
    loaders = {'train_dataloader': runner.train_loop.dataloader}
    if runner.val_loop is not None:
        loaders['val_dataloader'] = runner.val_loop.dataloader
    for name, loader in loaders.items():
        dataset = loader.dataset
        if isinstance(dataset, IterableDataset) or type(_batch_sampler(loader)) is not BatchSampler:
            continue
        if loader.batch_size == 1 or len(dataset) < 2:
            continue
        with torch.random.fork_rng(), random_states_kept(), torch.no_grad():
            _try_batch(name, loader, lambda batch, k=name: model.data_preprocessor(batch, k == 'train_dataloader'))


def _batch_sampler(loader: DataLoader) -> Any:
    batches = loader.batch_sampler
    return batches.batches if isinstance(batches, SeededBatches) else batches


def _try_batch(name: str, loader: DataLoader, preprocess: Callable) -> None:
    dataset = loader.dataset
    samples = []
    for index in _indices_to_try(loader):
        try:
            samples.append((index, dataset[index]))
        except Exception as error:
            raise PreflightError(
                f'{name} would fail on {_path(dataset, index)}: {type(error).__name__}: {error}'
            ) from error
    shapes = {_shape(sample): index for index, sample in reversed(samples)}
    if len(shapes) < 2 or () in shapes:
        return
    try:
        preprocess(loader.collate_fn([sample for _, sample in samples]))
    except (RuntimeError, AssertionError, ValueError, TypeError) as error:
        found = ', '.join(
            f'{_path(dataset, index)} ({" x ".join(map(str, shape[1:]))})' for shape, index in shapes.items()
        )
        first = str(error).partition('\n')[0]
        limit = ', if no batch normalization is trained' if name == 'train_dataloader' else ''
        raise PreflightError(
            f'{name} would fail: images of different sizes (height x width after the pipeline) cannot form a batch: '
            f"{found}. Add dict(type='Resize', scale=(WIDTH, HEIGHT), keep_ratio=False) to the pipeline, let "
            f'model.data_preprocessor pad, or set {name}.batch_size=1{limit} ({type(error).__name__}: {first})'
        ) from error


def _indices_to_try(loader: DataLoader) -> list[int]:
    sampler = loader.sampler
    dataset: Any = loader.dataset
    if isinstance(sampler, SequentialSampler) or isinstance(sampler, DefaultSampler) and not sampler.shuffle:
        batches: list[list[int]] = list(_batch_sampler(loader) or [])
        step = max(1, len(dataset) // _MAX_SIZES)
        return next(filter(None, (_of_different_sizes(dataset, batch) for batch in batches[::step])), [])
    if not isinstance(sampler, (RandomSampler, DefaultSampler, InfiniteSampler, ResumableInfiniteSampler)):
        return []  # a sampler may choose images of one size for each batch
    # if all sizes are equal, a random Resize can still make them different
    return _of_different_sizes(dataset, spread(range(len(dataset)))) or [0, len(dataset) - 1]


def _of_different_sizes(dataset: Any, indices: Sequence[int]) -> list[int]:
    """Indices of images of different sizes, extreme ones first; [] if all have the same size."""
    sizes: dict[tuple[int, int], int] = {}
    for index in indices:
        size = _size(dataset, index)
        if size is not None:
            sizes.setdefault(size, index)
    if len(sizes) < 2:
        return []
    orders: list[Callable[[tuple[int, int]], float]] = [lambda size: size[0] * size[1], lambda size: size[0] / size[1]]
    extreme = [choose(sizes, key=order) for order in orders for choose in (min, max)]
    return [sizes[size] for size in list(dict.fromkeys([*extreme, *sizes]))[:_MOST]]


def _size(dataset: Any, index: int) -> tuple[int, int] | None:
    """Height and width of an image, from its record or the head of its file; None if unknown."""
    try:
        info = dataset.get_data_info(index)
        if 'height' in info and 'width' in info:
            return info['height'], info['width']
        return upright_size_in_time(Path(info['img_path']))
    except Exception:  # a dataset of any class; its images are then tried without their sizes
        return None


def _path(dataset: Any, index: int) -> str:
    try:
        return str(dataset.get_data_info(index)['img_path'])
    except Exception:  # the dataset may be of any class
        return f'image {index}'


def _shape(sample: Any) -> tuple[int, ...]:
    """Shape of the first image of a sample as the pipeline returns it; () if there is none."""
    image = sample.get('inputs') if isinstance(sample, Mapping) else None
    while isinstance(image, list | tuple) and image:
        image = image[0]
    return tuple(image.shape) if isinstance(image, torch.Tensor) else ()
