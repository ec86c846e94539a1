# Copyright (c) addp_mm contributors. Apache-2.0.
"""One optimizer for each of several components of a model, with one backward pass."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from mmengine.optim import OptimWrapper, OptimWrapperDict, build_optim_wrapper
from torch import Tensor, nn

from addp_mm.config.config_file import ConfigError
from addp_mm.errors import first_few
from addp_mm.registry import OPTIM_WRAPPER_CONSTRUCTORS


class JointOptimWrapperDict(OptimWrapperDict):
    """Several optimizer wrappers that step after one common backward pass.

    mmengine's own class leaves the steps to a ``train_step`` of the model, which
    DistributedDataParallel's wrapper does not call. Here ``optim_context`` and ``update_params``
    are the whole training step, so that a model and its wrapper need no ``train_step`` of their
    own.

    Raises:
        ConfigError: The wrappers differ in type, precision or gradient accumulation.
    """

    def __init__(self, **wrappers: OptimWrapper) -> None:
        super().__init__(**wrappers)
        kinds = {
            (type(wrapper).__name__, str(getattr(wrapper, 'cast_dtype', None)), wrapper._accumulative_counts)  # noqa: SLF001  # no public attribute
            for wrapper in wrappers.values()
        }
        if len(kinds) > 1:
            raise ConfigError(
                'the optimizers of one backward pass must agree in type, dtype and accumulative_counts; '
                f'those of {" and ".join(wrappers)} have {sorted(kinds)}'
            )

    @contextmanager
    def optim_context(self, model: nn.Module) -> Iterator[None]:
        """Autocast and gradient accumulation, which are the same for all wrappers."""
        with next(iter(self.optim_wrappers.values())).optim_context(model):
            yield

    def update_params(
        self, losses: dict[str, Tensor], step_kwargs: dict | None = None, zero_kwargs: dict | None = None
    ) -> None:
        """Backward pass of the sum of the losses, and a step of each optimizer that has one.

        Args:
            losses: Scalars by the names of the wrappers. A loss must not reach the parameters of
                another wrapper.
            step_kwargs: Arguments of the optimizers' ``step``. Defaults to None.
            zero_kwargs: Arguments of the optimizers' ``zero_grad``. Defaults to None.
        """
        scaled = []
        for name, loss in losses.items():
            wrapper = self[name]
            loss = wrapper.scale_loss(loss)
            # each wrapper scales its own loss, which has gradients at its own parameters only
            scaled.append(wrapper.loss_scaler.scale(loss) if hasattr(wrapper, 'loss_scaler') else loss)
        self.backward(torch.stack(scaled).sum())
        for name, wrapper in self.items():
            # wrappers without a loss count too, so that all step together
            wrapper._inner_count += 1  # noqa: SLF001  # no public attribute
            if not wrapper.should_update():
                continue
            if name in losses:
                wrapper.step(**(step_kwargs or {}))
            wrapper.zero_grad(**(zero_kwargs or {}))

    def backward(self, loss: Tensor, **kwargs) -> None:
        """Backward pass of the sum of the losses, which :meth:`update_params` has scaled."""
        loss.backward(**kwargs)

    def initialize_count_status(self, model: nn.Module, cur_iter: int, max_iters: int) -> None:
        """Set the counters of gradient accumulation of all wrappers."""
        for wrapper in self.values():
            wrapper.initialize_count_status(model, cur_iter, max_iters)


@OPTIM_WRAPPER_CONSTRUCTORS.register_module()
class ComponentsOptimWrapperConstructor:
    """One optimizer for each named component of a model.

    Args:
        optim_wrapper_cfg: Config of the optimizer wrapper for each component, by the name of the
            model's attribute. It may have its own ``paramwise_cfg`` and ``constructor``.
        paramwise_cfg: Must be None; each component has its own. Defaults to None.

    Raises:
        ConfigError: A name is not a component of the model, or a trained parameter belongs to none.

    Example:
        >>> optim_wrapper = dict(
        ...     constructor='addp_mm.ComponentsOptimWrapperConstructor',
        ...     tokenizer=dict(optimizer=dict(type='Adam', lr=1e-4)),
        ...     discriminator=dict(optimizer=dict(type='Adam', lr=1e-4)))
    """

    def __init__(self, optim_wrapper_cfg: dict, paramwise_cfg: dict | None = None) -> None:
        if paramwise_cfg is not None:
            raise ConfigError(
                f'write paramwise_cfg into the config of a component in optim_wrapper: {" or ".join(optim_wrapper_cfg)}'
            )
        self.components = {name: cfg for name, cfg in optim_wrapper_cfg.items() if name != 'type'}

    def __call__(self, model: nn.Module) -> JointOptimWrapperDict:
        """Build the optimizers of a model, which may be in a wrapper."""
        model = getattr(model, 'module', model)
        modules = dict(model.named_children())
        unknown = [name for name in self.components if name not in modules]
        if unknown:
            raise ConfigError(
                f'optim_wrapper: {first_few(unknown)} is not a component of {type(model).__name__}, which has '
                f'{", ".join(modules)}'
            )
        orphans = [
            name
            for name, parameter in model.named_parameters()
            if parameter.requires_grad and name.partition('.')[0] not in self.components
        ]
        if orphans:
            raise ConfigError(
                f'optim_wrapper: no optimizer trains {first_few(orphans)} of {type(model).__name__}; its '
                f'components are {", ".join(self.components)}'
            )
        wrappers = {name: build_optim_wrapper(modules[name], cfg) for name, cfg in self.components.items()}
        for name, wrapper in wrappers.items():
            if wrapper.clip_grad_kwargs:
                wrapper.grad_name = f'{name}_{wrapper.grad_name}'
        return JointOptimWrapperDict(**wrappers)
