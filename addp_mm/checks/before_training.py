# Copyright (c) addp_mm contributors. Apache-2.0.
"""Check a built runner before its first training step; each check is one function."""

import math
import traceback
from typing import Any

import torch
from mmengine import dist
from mmengine.dataset import InfiniteSampler
from mmengine.hooks import CheckpointHook
from mmengine.model import BaseModel
from mmengine.optim import OptimWrapperDict
from mmengine.runner import Runner
from torch import nn
from torch.utils.data import DataLoader, IterableDataset

from addp_mm.checks.class_numbers import OWN_CLASSES
from addp_mm.checks.preflight_error import PreflightError
from addp_mm.errors import UserError, first_few
from addp_mm.randomness import random_states_kept


def check_number_of_batches(runner: Runner) -> None:
    """Check that the training data give at least one batch.

    Args:
        runner: The runner, built.

    Raises:
        PreflightError: ``drop_last`` drops the only batch of each process.
    """
    loader = runner.train_loop.dataloader
    if isinstance(loader.dataset, IterableDataset) or isinstance(loader.sampler, InfiniteSampler):
        return
    if len(loader) == 0:
        raise PreflightError(
            f'train_dataloader has no batch: {len(loader.dataset)} images over {dist.get_world_size()} '
            f'process(es) are fewer than batch_size={loader.batch_size}, and drop_last=True drops them. Lower '
            'train_dataloader.batch_size, or set train_dataloader.drop_last=False'
        )


def check_number_of_classes(runner: Runner, model: nn.Module) -> None:
    """Check that no head has fewer classes than the training data, whose labels are class indices.

    Not checked are heads of one class, such as that of a region proposal network; heads for
    panoptic data, which have a part of the classes; heads with classes of their own, such as
    borders; and class-conditional models, which :func:`check_class_labels` checks.

    Args:
        runner: The runner, built.
        model: Its model without a wrapper.

    Raises:
        PreflightError: A head has fewer classes. The message names the head and both numbers.
    """
    meta = getattr(runner.train_loop.dataloader.dataset, 'metainfo', None) or {}
    classes = meta.get('classes')
    if classes is None or 'thing_classes' in meta:
        return
    for name, module in model.named_modules():
        if hasattr(module, 'class_drop_rate'):
            continue
        count = None if type(module).__name__ in OWN_CLASSES else getattr(module, 'num_classes', None)
        if isinstance(count, int) and 1 < count < len(classes):
            raise PreflightError(
                f'train_dataloader has {len(classes)} classes ({first_few(classes)}), but model.{name} has only '
                f'{count}: set model.{name}.num_classes={len(classes)}, or give the dataset a '
                'metainfo=dict(classes=…) with fewer'
            )


def check_class_labels(runner: Runner, model: Any) -> None:
    """Check that the training data of a class-conditional model have labels, and of its classes.

    Args:
        runner: The runner, built.
        model: Its model without a wrapper.

    Raises:
        PreflightError: The data have more classes than the model.
        ClassLabelError: The first training image has no label, or one that is not a class.
    """
    number = getattr(model, 'num_classes', 0) if hasattr(model, 'class_drop_rate') else 0
    if not number:
        return
    from addp_mm.models.selfsup.class_labels import read_labels  # the package imports mmpretrain

    loader = runner.train_loop.dataloader
    classes = (getattr(loader.dataset, 'metainfo', None) or {}).get('classes')
    if classes is not None and len(classes) > number:
        raise PreflightError(
            f'train_dataloader has {len(classes)} classes ({first_few(classes)}), but the model has only {number}: set '
            f'num_classes={len(classes)} in every token_space, and num_class_slots to at least {len(classes) + 1}'
        )
    if isinstance(loader.dataset, IterableDataset):
        return
    with torch.random.fork_rng(), random_states_kept():
        samples = _first_batch(loader).get('data_samples')
    read_labels(samples, model.predictor.token_space, torch.device('cpu'))


def check_first_training_image(runner: Runner, model: BaseModel) -> None:
    """Check that the first training image can be read, and that the model takes images of its size.

    It calls ``check_image_size`` of ``model.tokenizer`` and ``model.backbone``.

    Args:
        runner: The runner, built.
        model: Its model without a wrapper.

    Raises:
        PreflightError: The check failed. The message names the image.
    """
    loader = runner.train_loop.dataloader
    if isinstance(loader.dataset, IterableDataset):
        return
    with torch.random.fork_rng(), random_states_kept(), torch.no_grad():
        try:
            batch = _first_batch(loader)
        except Exception as error:
            raise PreflightError(
                f'training would fail on {_first_image(loader.dataset)}: {type(error).__name__}: {error}'
            ) from error
        sizes = _image_sizes(model.data_preprocessor(batch, True))
    parts: list[Any] = [getattr(model, name, None) for name in ('tokenizer', 'backbone')]
    for part in parts:
        for height, width in sizes if hasattr(part, 'check_image_size') else ():
            try:
                part.check_image_size(height, width)
            except UserError as error:
                raise PreflightError(f'training would fail on {_first_image(loader.dataset)}: {error}') from error


def check_first_validation_image(runner: Runner) -> None:
    """Check that the first validation image passes through the pipeline and the model.

    A loop that generates images generates the first one.

    Args:
        runner: The runner, built.

    Raises:
        PreflightError: The check failed. The message names the error and its line of code.
    """
    if runner.val_loop is None or isinstance(runner.val_loop.dataloader.dataset, IterableDataset):
        return
    model = runner.model
    was_training = model.training
    model.eval()
    try:
        with torch.random.fork_rng(), random_states_kept(), torch.no_grad():
            getattr(runner.val_loop, 'generate', model.val_step)(_first_batch(runner.val_loop.dataloader))
    except Exception as error:
        where = traceback.extract_tb(error.__traceback__)[-1]
        raise PreflightError(
            'validation would fail after the first epoch, on the first image of val_dataloader: '
            f'{type(error).__name__}: {str(error) or where.line} ({where.filename}, line {where.lineno})'
        ) from error
    finally:
        model.train(was_training)


def warn_about_checkpoint_interval(runner: Runner) -> None:
    """Warn if checkpoints would lose the gradients of an unfinished optimizer step.

    :class:`~addp_mm.engine.hooks.CheckpointHook` stores them, but not those of sharded weights.
    mmengine's own hook never does.

    Args:
        runner: The runner, built.
    """
    wrapper = runner.optim_wrapper
    wrappers = wrapper.values() if isinstance(wrapper, OptimWrapperDict) else [wrapper]
    passes = max(getattr(one, '_accumulative_counts', 1) for one in wrappers)
    for hook in runner.hooks:
        if not isinstance(hook, CheckpointHook) or hook.by_epoch or hook.interval < 1 or hook.interval % passes == 0:
            continue
        if hasattr(hook, 'keeps_gradients') and hook.keeps_gradients(runner):
            continue
        good = math.ceil(hook.interval / passes) * passes
        runner.logger.warning(
            f'checkpoints are saved every {hook.interval} iterations, but one optimizer step takes {passes} '
            '(accumulative_counts). Resuming from a checkpoint saved within a step loses the gradients of its first '
            f'iterations. Set default_hooks.checkpoint.interval={good}, or another multiple of {passes}'
        )


def _first_batch(loader: DataLoader):
    return loader.collate_fn([loader.dataset[0]])


def _first_image(dataset: Any) -> str:
    """Path of the first image, if the dataset has it."""
    try:
        return dataset.get_data_info(0)['img_path']
    except Exception:  # the dataset may be of any class, and the name is only part of another error
        return 'the first image of train_dataloader'


def _image_sizes(data) -> set[tuple[int, int]]:
    """Heights and widths in pixels of the images in a batch as a data preprocessor returns it."""
    inputs = data.get('inputs') if isinstance(data, dict) else None
    inputs = inputs if isinstance(inputs, list | tuple) else [inputs]
    return {(one.shape[2], one.shape[3]) for one in inputs if isinstance(one, torch.Tensor) and one.ndim == 4}
