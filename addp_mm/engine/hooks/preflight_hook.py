# Copyright (c) addp_mm contributors. Apache-2.0.
"""Check a checkpoint and the first images before training starts."""

from collections.abc import Callable
from functools import partial

from mmengine.hooks import Hook
from mmengine.model import BaseTTAModel
from mmengine.runner import Runner
from torch import nn

from addp_mm.checkpoints.finite import refuse_non_finite
from addp_mm.checkpoints.names import strip_wrappers
from addp_mm.checks.before_training import (
    check_class_labels,
    check_first_training_image,
    check_first_validation_image,
    check_number_of_batches,
    check_number_of_classes,
    warn_about_checkpoint_interval,
)
from addp_mm.checks.checkpoint_fit import check_checkpoint_fit, check_training_state
from addp_mm.checks.counting import warn_about_counting
from addp_mm.checks.mixed_sizes import check_mixed_sizes
from addp_mm.checks.save_best import check_save_best
from addp_mm.engine.strategies.sharded import is_sharded, whole
from addp_mm.engine.unwrap import bare_model, is_resuming
from addp_mm.registry import HOOKS


@HOOKS.register_module()
class PreflightHook(Hook):
    """Check before training that a checkpoint fits the model, and the first image of each kind.

    mmengine only prints a list if shapes in a checkpoint differ, and finds an error of the
    validation pipeline after the first epoch. With this hook both are errors at the start:

    - Testing and resuming: every parameter of the model must be in the checkpoint, in the same
      shape.
    - No weight that is loaded may be NaN or Inf.
    - ``load_from`` at the start of a training: shapes must agree, except for the number of classes
      of a head's last layers, and at least one parameter must be found.
    - Training: the checks of :mod:`addp_mm.checks.before_training`, and that images of different
      sizes can form a batch. They leave the random generators unchanged.

    Args:
        testing: Whether the model is tested, not trained. Defaults to False.

    Raises:
        CheckpointError: The checkpoint does not fit.
        PreflightError: A check before training failed.
    """

    priority = 'VERY_LOW'

    def __init__(self, testing: bool = False) -> None:
        self.testing = testing

    def after_load_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        """Compare ``checkpoint`` with the model before mmengine loads it."""
        if not isinstance(runner.model, nn.Module):
            return  # DeepSpeed's engine has loaded its own files strictly
        source = runner._load_from  # noqa: SLF001  # mmengine has no public attribute for the checkpoint of a run
        resuming = is_resuming(runner) and not self.testing
        if resuming:
            check_training_state(checkpoint, source)
        model = bare_model(runner)
        if isinstance(model, BaseTTAModel):
            model = model.module  # the module that mmengine loads into
        if is_sharded(runner.model):
            model = runner.model  # only the module inside the wrapper has whole weights
        with whole(runner.model):
            check_checkpoint_fit(checkpoint, model, source, runner.logger, self.testing or resuming)
        if resuming:
            averages = {strip_wrappers(name): value for name, value in checkpoint.get('ema_state_dict', {}).items()}
            refuse_non_finite(averages, model, f'ema_state_dict of {source}')

    def before_train(self, runner: Runner) -> None:
        """Run the checks that need a built runner."""
        for check in checks_before_training(runner):
            check()


def checks_before_training(runner: Runner) -> list[Callable[[], None]]:
    """The checks that need a built runner, in order.

    Args:
        runner: The runner; its loops are built.
    """
    model = bare_model(runner)
    return [
        partial(warn_about_counting, runner),
        partial(check_number_of_batches, runner),
        partial(check_number_of_classes, runner, model),
        partial(check_save_best, runner),
        partial(check_first_training_image, runner, model),
        partial(check_class_labels, runner, model),
        partial(check_mixed_sizes, runner, model),
        partial(warn_about_checkpoint_interval, runner),
        partial(check_first_validation_image, runner),
    ]
