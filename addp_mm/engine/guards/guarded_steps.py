# Copyright (c) addp_mm contributors. Apache-2.0.
"""Leave out an optimizer step whose gradients are non-finite."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps

import torch
from mmengine import dist
from mmengine.optim import BaseOptimWrapper, OptimWrapper, OptimWrapperDict
from torch import Tensor, nn
from torch.optim import Optimizer

from addp_mm.checkpoints.names import strip_wrappers
from addp_mm.devices import is_accelerator
from addp_mm.engine.optimizers.components import JointOptimWrapperDict


class GuardedSteps:
    """Wraps ``backward`` and ``step`` of a training's optimizer wrappers.

    Weights and moments then stay good.

    A step is left out if the loss of its backward passes or one of its gradients is non-finite on
    any rank. Gradients are checked before they are clipped, which would spread a NaN to all of
    them. With a loss scaler infinite gradients are normal, and the scaler leaves out the step.

    The check reads one number from the device before the step. On a GPU the process would wait for
    it, so that fused kernels read it themselves, unless the process waits anyway for the norm by
    which gradients are clipped.

    Args:
        optim_wrapper: The runner's optimizer wrapper, or a dict of them. Wrappers of DeepSpeed are
            not changed.
        model: The model, for the names of its parameters.
    """

    def __init__(self, optim_wrapper: BaseOptimWrapper, model: nn.Module) -> None:
        self._names = {id(weight): strip_wrappers(name) for name, weight in model.named_parameters()}
        parts = list(optim_wrapper.values()) if isinstance(optim_wrapper, OptimWrapperDict) else [optim_wrapper]
        self.wrappers = [part for part in parts if isinstance(part, OptimWrapper)]
        # one backward pass serves all its wrappers: they step together or not at all
        self._joint = isinstance(optim_wrapper, JointOptimWrapperDict)
        self._for_kernel: Tensor | None = None
        self._earlier: list[tuple[BaseOptimWrapper, str, Callable | None]] = []
        self.start_iteration()
        for part in [*self.wrappers, *([optim_wrapper] if self._joint else [])]:
            self._wrap(part)
        # after those that choose the kernels of a step
        self._hooks = [part.optimizer.register_step_pre_hook(self._before_kernels) for part in self.wrappers]

    def start_iteration(self) -> None:
        """Forget the last iteration."""
        self._norms: list[tuple[list[str], Tensor]] = []
        self._loss_bad = torch.zeros((), dtype=torch.bool)
        self._agreed: Tensor | None = None
        self.stepped = False

    def end(self) -> None:
        """Give the wrappers their earlier methods again."""
        for part, name, earlier in self._earlier:
            if earlier is None:
                vars(part).pop(name, None)
            else:
                setattr(part, name, earlier)
        for hook in self._hooks:
            hook.remove()

    def verdict(self, loss: Tensor) -> tuple[bool, bool, bool]:
        """What is non-finite in this iteration, after the training step.

        Args:
            loss: The logged loss, a scalar.

        Returns:
            Whether the loss is non-finite on any rank, whether a gradient is, and whether the loss
            is on this rank.
        """
        self._note_loss(loss)
        agreed = self._agreed
        if agreed is None:
            agreed = _agree(self._flags([]))
        first, second, own = torch.stack([*agreed.unbind(), self._loss_bad.to(agreed)]).tolist()
        return bool(first or own and dist.get_world_size() == 1), bool(second), bool(own)

    def non_finite_gradients(self) -> list[str]:
        """Names of the parameters whose gradients were non-finite on this rank."""
        found = []
        for names, norms in self._norms:
            found += [name for name, finite in zip(names, norms.isfinite().tolist(), strict=True) if not finite]
        return found

    def loss_scale(self) -> float | None:
        """The smallest loss scale, or None if there is no loss scaler."""
        scales = [part.loss_scaler.get_scale() for part in self.wrappers if _has_scaler(part)]
        return min(scales, default=None)

    def _wrap(self, part: BaseOptimWrapper) -> None:
        backward = part.backward

        @wraps(backward)
        def noting_loss(loss: Tensor, **kwargs: object) -> None:
            self._note_loss(loss)
            backward(loss, **kwargs)

        self._replace(part, 'backward', noting_loss)
        if not isinstance(part, OptimWrapper):
            return
        step = part.step

        @wraps(step)  # schedulers mark it
        def guarded(**kwargs: object) -> None:
            self._step(part, step, kwargs)

        self._replace(part, 'step', guarded)

    def _replace(self, part: BaseOptimWrapper, name: str, method: Callable) -> None:
        self._earlier.append((part, name, vars(part).get(name)))
        setattr(part, name, method)

    def _note_loss(self, loss: Tensor) -> None:
        bad = ~loss.detach().isfinite().all()
        self._loss_bad = self._loss_bad.to(bad.device) | bad

    def _step(self, part: OptimWrapper, step: Callable[..., None], kwargs: dict) -> None:
        self.stepped = True
        if self._agreed is None or not self._joint:
            self._agreed = _agree(self._flags(self.wrappers if self._joint else [part]))
        bad = self._agreed.amax()
        if not _runs_ahead(part):
            if not bad:
                step(**kwargs)
            return
        self._for_kernel = bad
        try:
            step(**kwargs)
        finally:
            self._for_kernel = None
            vars(part.optimizer).pop('found_inf', None)

    def _before_kernels(self, optimizer: Optimizer, *_: object) -> None:
        """Give the kernels the verdict as GradScaler does; other kernels get no gradients."""
        if self._for_kernel is None:
            return
        if all(group.get('fused') for group in optimizer.param_groups):
            optimizer.found_inf = self._for_kernel  # type: ignore[attr-defined]
        elif self._for_kernel:
            optimizer.zero_grad()

    def _flags(self, parts: list[OptimWrapper]) -> Tensor:
        """Float32 (2,): whether the loss and a gradient of these wrappers are non-finite here."""
        norms = [self._gradient_norms(part) for part in parts if not _has_scaler(part)]
        device = norms[0].device if norms else self._loss_bad.device
        bad = torch.stack([(~norm.isfinite()).any() for norm in norms if norm.numel()] or [self._loss_bad & False])
        return torch.stack([self._loss_bad.to(device), bad.any().to(device)]).float()

    def _gradient_norms(self, part: OptimWrapper) -> Tensor:
        """Norms of the gradients, (number of parameters,)."""
        named = [
            (self._names.get(id(weight), 'a parameter'), weight.grad)
            for group in part.optimizer.param_groups
            for weight in group['params']
            if weight.grad is not None
        ]
        names, gradients = [name for name, _ in named], [_values(gradient) for _, gradient in named]
        if not gradients:
            return torch.zeros(0, device=self._loss_bad.device)
        norms = torch.stack([norm.float() for norm in torch._foreach_norm(gradients)])  # noqa: SLF001  # no public name
        self._norms.append((names, norms))
        return norms


def _agree(flags: Tensor) -> Tensor:
    dist.all_reduce(flags, 'max')
    return flags


def _values(gradient: Tensor) -> Tensor:
    return gradient.coalesce().values() if gradient.is_sparse else gradient


def _has_scaler(part: OptimWrapper) -> bool:
    return hasattr(part, 'loss_scaler') and part.loss_scaler.is_enabled()


def _runs_ahead(part: OptimWrapper) -> bool:
    """Whether the process issues the step before the device has computed the gradients."""
    beside = all(is_accelerator(weight.device) for group in part.optimizer.param_groups for weight in group['params'])
    return beside and not part.clip_grad_kwargs and not _has_scaler(part)
