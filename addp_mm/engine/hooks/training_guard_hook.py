# Copyright (c) addp_mm contributors. Apache-2.0.
"""Act on a training that goes wrong."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from mmengine import dist
from mmengine.hooks import Hook
from mmengine.optim import OptimWrapper, OptimWrapperDict
from mmengine.runner import Runner
from torch import Tensor

from addp_mm.config.config_file import ConfigError
from addp_mm.engine.guards.batch_names import batch_names
from addp_mm.engine.guards.buffers import BufferCopy
from addp_mm.engine.guards.failed_batch import Failure
from addp_mm.engine.guards.guarded_steps import GuardedSteps
from addp_mm.engine.guards.learning_rates import multiply_learning_rates
from addp_mm.engine.guards.log_detectors import LogDetectors, options_of
from addp_mm.engine.guards.loss_scale import LossScaleGuard
from addp_mm.engine.guards.saved_events import SavedEvents
from addp_mm.engine.hooks.checkpoint_rollback import (
    RollBackError,
    RunCheckpoints,
    allow_rollback,
    check_can_roll_back,
    restore,
)
from addp_mm.engine.hooks.failures import TrainingCollapsedError, non_finite_weight, saves_now
from addp_mm.engine.hooks.random_state_hook import RandomStateHook
from addp_mm.engine.unwrap import bare_model, is_resuming
from addp_mm.errors import first_few
from addp_mm.registry import HOOKS

STATE_KEY = 'training_guard'
KINDS = ('loss', 'gradients', 'weights', 'loss_scale', 'collapse', 'constant', 'codes')
# those that a single batch can cause, so that its samples are named
_OF_A_BATCH = ('loss', 'gradients')
_POLICIES = ('stop', 'skip', 'rollback')
_NAMES = 100  # of parameters with non-finite gradients


@HOOKS.register_module()
class TrainingGuardHook(Hook):
    """Detects that a training goes wrong, and stops it, skips the update or goes back.

    tools/train.py adds it to every training; ``default_hooks.guard=None`` switches it off. The
    kinds of failures are

    - 'loss' and 'gradients': non-finite on any rank. They are found before the optimizer's step, so
      that weights and moments stay good.
    - 'weights': non-finite when they would be saved.
    - 'loss_scale': the scale of float16 training diverges
      (:class:`~addp_mm.engine.guards.LossScaleGuard`).
    - 'collapse': the mean loss rises or is too small (:class:`~addp_mm.engine.guards.LossGuard`).
    - 'constant': the loss stays at that of a constant prediction
      (:class:`~addp_mm.engine.guards.ConstantPredictionGuard`).
    - 'codes': a tokenizer uses fewer and fewer codes
      (:class:`~addp_mm.engine.guards.CodeUsageGuard`).

    The policy for a kind is

    - 'stop': :class:`~addp_mm.engine.hooks.TrainingCollapsedError`, on all ranks. Nothing is saved.
    - 'skip', for loss and gradients only: no update. The gradients are dropped, also those of
      earlier passes of an accumulated step, and batch statistics get their earlier values. At most
      ``max_skips`` times in a row, then the training stops.
    - 'rollback': the last good checkpoint of this run is restored with its optimizer and counters,
      and all learning rates are multiplied by ``lr_factor``, also those of later steps of the
      schedules. By iterations the data continue; by epochs the epoch is repeated in another order.
      At most ``max_rollbacks`` times, then the training stops.

    Each failure is logged with the files of the batch, and saved in ``WORK_DIR/failed_batches`` for
    tools/analysis_tools/replay_batch.py.

    Args:
        policy: One policy for all kinds, or a dict of policies by kind; other kinds stop the
            training. Defaults to 'stop'.
        max_skips: Largest number of iterations in a row that are skipped. Defaults to 10.
        max_rollbacks: Rollbacks of a whole run, including those before a resume. Defaults to 3.
        lr_factor: Factor of the learning rates at a rollback, in (0, 1]. Defaults to 0.5.
        max_saved: Failures that are saved with the weights of the model; some later ones are saved
            without. Defaults to 3.
        loss_scale: Arguments of its detector; False: off. Defaults to None: its defaults.
        collapse: As ``loss_scale``. The default only checks models of tokens, whose loss is in
            nats; a dict checks any loss. Defaults to None.
        constant: As ``loss_scale``. It checks models of tokens. Defaults to None.
        codes: As ``loss_scale``. It checks tokenizers. Defaults to None.

    Raises:
        ValueError: An option is out of its range.
        ConfigError: The training cannot be continued as the policy says.
    """

    # Runs before LoggerHook and ParamSchedulerHook, so that a failed iteration is neither logged,
    # counted nor saved.
    priority = 'ABOVE_NORMAL'

    def __init__(
        self,
        policy: str | Mapping[str, str] = 'stop',
        max_skips: int = 10,
        max_rollbacks: int = 3,
        lr_factor: float = 0.5,
        max_saved: int = 3,
        loss_scale: dict | bool | None = None,
        collapse: dict | bool | None = None,
        constant: dict | bool | None = None,
        codes: dict | bool | None = None,
    ) -> None:
        self.policies = _by_kind(policy)
        if min(max_skips, max_rollbacks, max_saved) < 0 or not 0 < lr_factor <= 1:
            raise ValueError(
                'max_skips, max_rollbacks and max_saved must not be negative and lr_factor in (0, 1]; '
                f'got {max_skips}, {max_rollbacks}, {max_saved} and {lr_factor}'
            )
        self.max_skips, self.max_rollbacks, self.lr_factor = max_skips, max_rollbacks, lr_factor
        self.scale_guard = None if loss_scale is False else LossScaleGuard(**options_of(loss_scale))
        self.detectors = LogDetectors(collapse=collapse, constant=constant, codes=codes)
        self.saved = SavedEvents(max_saved)
        self.skips_in_a_row = self.skips = self.rollbacks = 0
        self.lr_scale = self._loaded_scale = 1.0
        self._tried: set[str] = set()  # names of files
        self._checkpoints: Any = None  # a RunCheckpoints after the first iteration
        self._steps: GuardedSteps | None = None

    def before_train(self, runner: Runner) -> None:
        """Check that the policies are possible, and watch the optimizer's steps."""
        self._end()
        self._checkpoints = None
        if 'rollback' in self.policies.values():
            check_can_roll_back(runner)
            allow_rollback(runner)
        watched = isinstance(runner.optim_wrapper, (OptimWrapper, OptimWrapperDict))
        if 'skip' in self.policies.values() and not watched:
            raise ConfigError(
                f"default_hooks.guard.policy: {type(runner.optim_wrapper).__name__} cannot skip an update; set 'stop'"
            )
        self._steps = GuardedSteps(runner.optim_wrapper, runner.model)
        self._buffers = BufferCopy(bare_model(runner))

    def before_train_iter(self, runner: Runner, batch_idx: int, data_batch: Any = None) -> None:
        """List the checkpoints in the folder at the first iteration, and copy the buffers."""
        # not in before_train, where CheckpointHook sets its folder after this hook
        self._checkpoints = self._checkpoints or RunCheckpoints(runner)
        assert self._steps is not None
        self._steps.start_iteration()
        self._buffers.update()

    def after_train_iter(
        self, runner: Runner, batch_idx: int, data_batch: Any = None, outputs: dict | None = None
    ) -> None:
        """Look for failures, and act on the first."""
        outputs = outputs or {}
        failure = self._find(runner, batch_idx, outputs)
        if failure is None:
            self.skips_in_a_row = 0
            return
        assert self._steps is not None
        about = dict(
            seed=_seed(runner),
            names=batch_names(data_batch, getattr(runner.train_dataloader, 'dataset', None)),
            outputs={name: value.item() for name, value in outputs.items() if _is_number(value)},
            gradients=self._steps.non_finite_gradients()[:_NAMES],
        )
        text = self.saved.save(runner, failure, about, data_batch, self._buffers)
        self._act(runner, failure.kind, text)

    def after_train(self, runner: Runner) -> None:
        """Stop watching."""
        self._end()

    def before_save_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        """Store the counts and the state of the detectors."""
        checkpoint[STATE_KEY] = dict(
            skips_in_a_row=self.skips_in_a_row,
            skips=self.skips,
            rollbacks=self.rollbacks,
            lr_scale=self.lr_scale,
            tried=sorted(self._tried),
            saved=self.saved.state(),
            loss_scale=self.scale_guard and self.scale_guard.state(),
            **self.detectors.state(),
        )

    def after_load_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        """Continue from the stored values on resume; ``load_from`` loads weights only."""
        if not is_resuming(runner):
            return
        state = checkpoint.get(STATE_KEY, {})
        self._loaded_scale = state.get('lr_scale', 1.0)
        if not state:
            return
        self.skips_in_a_row = state['skips_in_a_row']
        self.skips = max(self.skips, state['skips'])
        self.rollbacks = max(self.rollbacks, state['rollbacks'])
        self.lr_scale = min(self.lr_scale, self._loaded_scale)
        self._tried |= set(state.get('tried', ()))
        self.saved.load(state['saved'])
        self.detectors.load(state)
        if self.scale_guard is not None and state['loss_scale'] is not None:
            self.scale_guard.load(state['loss_scale'])

    def _end(self) -> None:
        if self._steps is not None:
            self._steps.end()
            self._steps = None

    def _find(self, runner: Runner, batch_idx: int, outputs: Mapping[str, Any]) -> Failure | None:
        assert self._steps is not None
        loss = outputs.get('loss')
        bad_loss, bad_gradients, own = self._steps.verdict(loss if isinstance(loss, Tensor) else torch.zeros(()))
        if bad_loss:
            return Failure('loss', 'the loss is not finite', own)
        if bad_gradients:
            return Failure('gradients', 'the gradients are not finite, though the loss is')
        scale = self._steps.loss_scale() if self.scale_guard is not None else None
        if scale is not None:
            reason = self.scale_guard.check(scale, self._steps.stepped)  # type: ignore[union-attr]
            if reason:
                return Failure('loss_scale', reason)
        if saves_now(self, runner, batch_idx) and (name := non_finite_weight(runner.model)):
            return Failure('weights', f'{name} is not finite after this step, though the loss before it was')
        return self.detectors.check(outputs, runner.iter + 1, runner.max_iters)

    def _act(self, runner: Runner, kind: str, text: str) -> None:
        policy = self.policies[kind]
        if policy == 'rollback':
            raise RollBackError(text, self._roll_back)
        if policy == 'stop':
            raise TrainingCollapsedError(
                f'{text}. {self.advice(runner)}, or set default_hooks.guard.policy (docs/training_faults.md)'
            )
        if self.skips_in_a_row >= self.max_skips:
            raise TrainingCollapsedError(
                f'{text}; the {self.skips_in_a_row} iterations before were skipped (max_skips). {self.advice(runner)}'
            )
        self.skips_in_a_row += 1
        self.skips += 1
        runner.optim_wrapper.zero_grad()
        self._buffers.restore_floats()
        if name := _non_finite_parameter(runner):
            raise TrainingCollapsedError(
                f'{text}. The update was skipped, but the forward pass has made {name} non-finite. '
                f'{self.advice(runner)}'
            )
        runner.logger.warning(f'{text}; the update was skipped ({self.skips_in_a_row} in a row, {self.skips} in all)')

    def advice(self, runner: Runner) -> str:
        """What to do after a failure: where to start again, and with what."""
        checkpoints = self._checkpoints or RunCheckpoints(runner)
        path = next(checkpoints.good(), None)
        start = (
            f'The last good checkpoint is {path}: resume from it'
            if path
            else f'{checkpoints.folder} has no good checkpoint of this run: restart'
        )
        return f'{start} with a lower learning rate or stronger gradient clipping (optim_wrapper.clip_grad)'

    def _roll_back(self, runner: Runner, failure: str) -> None:
        if self.rollbacks >= self.max_rollbacks:
            raise TrainingCollapsedError(f'{failure}; {self.rollbacks} rollback(s) did not help. {self.advice(runner)}')
        path = self._checkpoints.choose(self._tried)
        if path is None:
            raise TrainingCollapsedError(
                f'{failure}; there is no good checkpoint yet to go back to. Lower the learning '
                'rate, or save checkpoints more often'
            )
        self.rollbacks += 1
        self._tried.add(Path(path).name)
        lr_scale, self._loaded_scale = self.lr_scale * self.lr_factor, 1.0
        restore(runner, path)
        multiply_learning_rates(runner, lr_scale / self._loaded_scale)
        self.lr_scale, self.skips_in_a_row = lr_scale, 0
        runner.logger.warning(
            f'{failure}; went back to {path} (rollback {self.rollbacks} of {self.max_rollbacks}), the learning rates '
            f'are now those of the config multiplied by {lr_scale:.4g}'
        )


def _by_kind(policy: str | Mapping[str, str]) -> dict[str, str]:
    """The policy of each kind."""
    given = dict(policy) if isinstance(policy, Mapping) else dict.fromkeys(KINDS, policy)
    unknown = [kind for kind in given if kind not in KINDS]
    if unknown:
        raise ValueError(f'policy has no kind {first_few(unknown)}; choose from {", ".join(KINDS)}')
    wrong = {kind: name for kind, name in given.items() if name not in _POLICIES}
    if wrong:
        raise ValueError(f'policy must be one of {", ".join(_POLICIES)}, got {first_few(wrong.values())}')
    not_a_step = [kind for kind, name in given.items() if name == 'skip' and kind not in _OF_A_BATCH]
    if not_a_step:
        raise ValueError(
            "policy 'skip' is for loss and gradients only, got it for "
            f"{first_few(not_a_step)}: set policy=dict(loss='skip', gradients='skip')"
        )
    return {kind: given.get(kind, 'stop') for kind in KINDS}


def _seed(runner: Runner) -> int | None:
    """Seed of the run, if it seeds each iteration."""
    seeding = next((hook for hook in runner.hooks if isinstance(hook, RandomStateHook)), None)
    return seeding and seeding.seed


def _is_number(value: object) -> bool:
    return isinstance(value, Tensor) and value.numel() == 1


def _non_finite_parameter(runner: Runner) -> str | None:
    """Name of a parameter that is NaN or Inf on some rank, also of one without a gradient."""
    named = runner.model.named_parameters()
    own = next((name for name, weight in named if not weight.detach().isfinite().all()), None)
    return next(filter(None, dist.all_gather_object(own)), None)
