# Copyright (c) addp_mm contributors. Apache-2.0.
"""One prediction and one training step of a config on made-up images: whether its parts fit."""

from __future__ import annotations

import copy
import math
import re
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any

import torch
from mmengine.config import Config
from mmengine.logging import MessageHub
from mmengine.model import BaseModel
from mmengine.optim import build_optim_wrapper
from torch import Tensor

from addp_mm.analysis.batches import build_model, scope_of, synthetic_batch
from addp_mm.checks.class_numbers import check_class_numbers
from addp_mm.engine.build_errors import name_sections
from addp_mm.engine.trial_runner import remove_downloads, trial_config
from addp_mm.errors import UserError, first_few
from addp_mm.swap.channels import wrong_channels
from addp_mm.swap.plan import SwapError
from addp_mm.swap.reduce import odd_size, reduce_config, trial_size_of
from addp_mm.swap.watch import Watched

BATCH_SIZE = 2
# Names of the results in a prediction of each package's models.
_RESULTS = dict(mmdet=('pred_instances', 'pred_panoptic_seg'), mmseg=('pred_sem_seg',), mmpretrain=('pred_score',))


class TrialError(SwapError):
    """A config whose model cannot be built, used for a prediction, or trained for a step."""


@dataclass(frozen=True)
class Trial:
    """What a trial of a config has shown.

    Args:
        img_size: Height and width of the training images in pixels.
        parameters: Number of the model's parameters.
        losses: Losses of the training step by name.
        maps: Channels and stride of each map that the heads get. The stride is None of features
            without height and width.
        idle: Names of trained parameters that got no gradient.
        predicted: Names of the predicted results, such as ``('pred_instances',)``.
        notes: Sentences about what differs from a training.
    """

    img_size: tuple[int, int]
    parameters: int
    losses: dict[str, float]
    maps: tuple[tuple[int, float | None], ...]
    idle: tuple[str, ...]
    predicted: tuple[str, ...]
    notes: tuple[str, ...]


def try_config(cfg: Config, img_size: tuple[int, int] = (64, 64), divisor: int = 32) -> Trial:
    """Build the model of a config, predict, and train it for one step with its own optimizer.

    Weights that would have to be downloaded are left out, and so are augmentations of whole batches
    that need images of the full size. The images of the prediction have sides of any length, where
    the config takes such images.

    Args:
        cfg: Config of default scope mmdet, mmseg or mmpretrain.
        img_size: The smallest height and width in pixels that the model can be trained with.
            Defaults to (64, 64).
        divisor: Sides of training images are multiples of it. Defaults to 32.

    Raises:
        TrialError: A step fails, a loss or a changed weight is not finite, a head gets maps of
            other strides, or a trained parameter of the backbone or the neck gets no gradient.
    """
    with trial_config(cfg) as small, scope_of(cfg), torch.random.fork_rng():
        torch.manual_seed(0)
        size = trial_size_of(small, img_size, divisor)
        notes = [*remove_downloads(small), *reduce_config(small, size)]
        model = attempt('the model cannot be built', lambda: _build(small))
        optimizer = attempt('the optimizer cannot be built', lambda: _optimizer(small, model))
        # before the step: one step may move a box out of its image, and mmdet pastes no mask there
        with Watched(model) as watched:
            predicted = _explained(small, watched, lambda: _predict(small, model, odd_size(small, size)))
        _check_strides(watched)
        with Watched(model) as watched:
            losses = attempt('the training step fails', lambda: _train(small, model, optimizer, size))
        _check_values(losses, model)
        _check_idle(cfg, watched.idle)
    parameters = sum(parameter.numel() for parameter in model.parameters())
    values = {name: float(value) for name, value in losses.items()}
    return Trial(size, parameters, values, watched.maps, watched.idle, predicted, tuple(notes))


def try_swap(before: Config, after: Config, img_size: tuple[int, int], divisor: int) -> tuple[Trial | None, str | None]:
    """Try a config whose backbone was replaced; if it fails as the original does, say so.

    A package may be missing that a loss needs, for example.

    Args:
        before: The original config.
        after: The config with another backbone.
        img_size: See :func:`try_config`.
        divisor: See :func:`try_config`.

    Returns:
        The trial and None; or None and the error of both configs.

    Raises:
        TrialError: Only the new config fails, or in another way.
    """
    try:
        _check_classes(after)
        return try_config(after, img_size, divisor), None
    except TrialError as error:
        try:
            _check_classes(before)
            try_config(before)
        except TrialError as other:
            if _cause(other) == _cause(error):
                return None, str(error)
        raise


def _check_classes(cfg: Config) -> None:
    attempt('the model cannot be trained', lambda: check_class_numbers(cfg))


def _cause(error: TrialError) -> str:
    """The message without sizes of images."""
    return re.sub(r'\d+ x \d+ px', '', str(error))


def count_parameters(cfg: Config) -> int:
    """Number of parameters of a config's model."""
    return sum(parameter.numel() for parameter in build_model(cfg).parameters())


def attempt(what: str, run: Callable[[], Any]) -> Any:
    """Return what a function returns.

    Args:
        what: What has failed if it raises an error.
        run: The function.

    Raises:
        TrialError: It raises an error. The message names the line of code.
    """
    try:
        return run()
    except UserError as error:
        raise TrialError(f'{what}: {error}') from error
    except Exception as error:  # models of any package
        where = traceback.extract_tb(error.__traceback__)[-1]
        text = ' '.join(str(error).split())[:300] or where.line  # assertions often say nothing
        raise TrialError(f'{what}: {type(error).__name__}: {text} ({where.filename}, line {where.lineno})') from error


def _explained(cfg: Config, watched: Watched, run: Callable[[], Any]) -> Any:
    """Return what a function returns; name what does not fit: channels, else the number of maps."""
    try:
        return run()
    except TrialError as error:
        words = next(chain(wrong_channels(cfg, watched), watched.wrong_levels()), '')
        raise TrialError(f'{words}. So {error}' if words else str(error)) from error


def _build(cfg: Config) -> BaseModel:
    model = build_model(cfg)
    model.init_weights()
    return model


def _optimizer(cfg: Config, model: BaseModel) -> Any:
    if cfg.get('optim_wrapper') is None:
        raise SwapError('the config has no optim_wrapper, so it cannot be trained')
    settings = copy.deepcopy(cfg.optim_wrapper)
    settings.pop('accumulative_counts', None)  # the step must change the weights
    with name_sections():
        return build_optim_wrapper(model, settings)


def _train(cfg: Config, model: BaseModel, optimizer: Any, img_size: tuple[int, int]) -> dict[str, Tensor]:
    hub = MessageHub.get_instance('addp_trial')  # losses that change in training read it
    for name in ('iter', 'epoch'):
        hub.update_info(name, 0)
    return model.train().train_step(_batch(cfg, img_size), optimizer)


def _predict(cfg: Config, model: BaseModel, img_size: tuple[int, int]) -> tuple[str, ...]:
    """Predict, check the values, and return the names of the results."""
    what = f'the prediction of images of {img_size[0]} x {img_size[1]} px fails'
    with torch.no_grad():
        predicted = attempt(what, lambda: model.eval().test_step(_batch(cfg, img_size)))
    wanted = _RESULTS[cfg.get('default_scope') or 'mmpretrain']
    if len(predicted) != BATCH_SIZE:
        raise TrialError(f'{BATCH_SIZE} images gave {len(predicted)} predictions')
    names = tuple(name for name in wanted if name in predicted[0])
    if not names:
        raise TrialError(f'the prediction has no {" or ".join(wanted)}, only {first_few(predicted[0].keys())}')
    for name in names:
        values = getattr(predicted[0], name)
        scores = values if isinstance(values, Tensor) else values.get('scores', torch.zeros(()))
        # boxes of untrained weights may be infinite, where a head predicts their logarithm
        if not scores.isfinite().all():
            raise TrialError(f'{name} of the prediction is not finite')
    return names


def _batch(cfg: Config, img_size: tuple[int, int]) -> dict:
    """A synthetic batch whose images are noise, so that no activation is constant."""
    batch = synthetic_batch(cfg, BATCH_SIZE, img_size)
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (BATCH_SIZE, 3, *img_size), generator=generator, dtype=torch.uint8)
    batch['inputs'] = list(images) if isinstance(batch['inputs'], list) else images
    return batch


def _check_strides(watched: Watched) -> None:
    wrong = list(watched.wrong_strides())
    if wrong:
        raise TrialError(
            f'{first_few(wrong, 2, "; ")}: objects would be found at other positions. Give the neck levels of these '
            'strides, or the heads the strides of the maps'
        )


def _check_values(losses: dict[str, Tensor], model: BaseModel) -> None:
    wrong = [name for name, value in losses.items() if not math.isfinite(float(value))]
    if wrong or 'loss' not in losses:
        raise TrialError(f'losses of the training step are not finite: {first_few(wrong or losses)}')
    broken = [name for name, parameter in model.named_parameters() if not parameter.isfinite().all()]
    if broken:
        raise TrialError(f'weights are not finite after one training step: {first_few(broken)}')


def _check_idle(cfg: Config, idle: Sequence[str]) -> None:
    """Check that backbone and neck are trained whole; DistributedDataParallel refuses others."""
    found = [name for name in idle if name.startswith(('backbone.', 'neck.'))]
    if found and not cfg.get('find_unused_parameters'):
        raise TrialError(
            f'no loss depends on {first_few(found)}: a training on several GPUs stops there. Return only the maps '
            'that the heads use, or let find_unused_parameters be True'
        )
