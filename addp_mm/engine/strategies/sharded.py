# Copyright (c) addp_mm contributors. Apache-2.0.
"""Fully sharded data parallel training by transformer blocks."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from itertools import chain
from typing import Any

from mmengine._strategy import FSDPStrategy
from mmengine.device import get_device
from mmengine.model import is_model_wrapper
from mmengine.optim import BaseOptimWrapper, build_optim_wrapper
from torch import nn
from torch.distributed.fsdp import FullyShardedDataParallel, ShardingStrategy
from torch.distributed.fsdp.wrap import ModuleWrapPolicy

from addp_mm.checkpoints.errors import CheckpointError
from addp_mm.checkpoints.names import strip_wrappers
from addp_mm.compat import is_off
from addp_mm.compat.fused_optimizers import fuse
from addp_mm.config.type_names import type_name
from addp_mm.errors import first_few
from addp_mm.registry import STRATEGIES

UNITS = ('Block', 'TransformerEncoderLayer')


@STRATEGIES.register_module()
class ShardedStrategy(FSDPStrategy):
    """mmengine's FSDPStrategy for transformers with frozen components and parameter groups.

    - Each block is a unit: its weights are gathered when it runs and released afterwards (FSDP,
      arXiv 2304.11277). The rest of the model is another unit.
    - Modules without a trainable parameter, such as ADDP's tokenizer and predictor, are not
      sharded. Each process has a copy, which runs without communication and can be compared over
      the processes.
    - Parameter groups are built before the weights are sharded. A shard is flat and has another
      name, so a constructor would treat every parameter as a vector.
    - Gradients are clipped by the norm over all processes. ``torch.nn.utils.clip_grad_norm_``,
      which OptimWrapper calls, sees the shards of one process.
    - Checkpoints contain whole weights under the usual names, as in any other training, and the
      state of the optimizer wrapper besides the optimizer's.

    Args:
        units: Class names of the blocks. Defaults to ``('Block', 'TransformerEncoderLayer')``.
        checkpoint_units: Whether blocks compute their activations again in the backward pass
            instead of keeping them. Defaults to False.
        model_wrapper: Arguments of mmengine's ``MMFullyShardedDataParallel``
            (``sharding_strategy``, ``cpu_offload``, …). Your own ``auto_wrap_policy`` replaces the
            units; your own ``ignored_modules`` or ``ignored_states`` replaces the choice of modules
            that are not sharded. Defaults to None.
        state_dict_cfg: As in FSDPStrategy; 'local' writes one file per process, which no other
            training can read. Defaults to 'full'.
        **kwargs: Arguments of mmengine's FSDPStrategy.

    Raises:
        ValueError: The model has none of the ``units``.
        CheckpointError: The optimizer of a checkpoint has other parameter groups.
    """

    def __init__(
        self,
        *,
        units: Sequence[str] = UNITS,
        checkpoint_units: bool = False,
        model_wrapper: dict | None = None,
        state_dict_cfg: str | dict = 'full',
        **kwargs,
    ) -> None:
        super().__init__(model_wrapper=model_wrapper, state_dict_cfg=state_dict_cfg, **kwargs)
        self.units = tuple(units)
        self.checkpoint_units = checkpoint_units

    def prepare(self, model: nn.Module | dict, *, optim_wrapper: BaseOptimWrapper | dict | None = None, **kwargs):
        """Build the optimizer for the whole weights, then shard the model."""
        if self._prepared:
            return self._prepared_components()
        if isinstance(optim_wrapper, dict):
            model = self.build_model(model)
            optim_wrapper = build_optim_wrapper(model, _for_shards(optim_wrapper))
        return super().prepare(model, optim_wrapper=optim_wrapper, **kwargs)

    def build_optim_wrapper(self, optim_wrapper: BaseOptimWrapper, model: Any) -> BaseOptimWrapper:
        """Pass the shards to an optimizer without state that was built for the whole weights."""
        shards = {strip_wrappers(name): parameter for name, parameter in model.named_parameters()}
        self.group_names = []
        for group in optim_wrapper.optimizer.param_groups:
            names = [self.id_to_name[id(parameter)] for parameter in group['params']]
            group['params'] = [shards[name] for name in names]
            self.group_names.append(names)
        if not is_off():
            fuse(optim_wrapper.optimizer)  # the shards may be on another device
        if getattr(optim_wrapper, 'grad_name', None) == 'grad_norm':
            optim_wrapper.clip_func = lambda _, max_norm, norm_type=2.0: model.clip_grad_norm_(max_norm, norm_type)
        return optim_wrapper

    def _wrap_model(self, model: nn.Module) -> nn.Module:
        if is_model_wrapper(model):
            return model
        classes = {type(module) for module in model.modules() if type(module).__name__ in self.units}
        given: dict[str, Any] = dict(self.model_wrapper or {})  # type: ignore[has-type]  # set by the base class
        if not classes and 'auto_wrap_policy' not in given:
            raise ValueError(
                f'ShardedStrategy: {type(model).__name__} has no {" or ".join(self.units)}. Name the '
                f'classes of its blocks in strategy.units; it has {first_few(_repeated(model))}'
            )
        given.setdefault('auto_wrap_policy', ModuleWrapPolicy(classes))
        if not {'ignored_modules', 'ignored_states'} & set(given):
            given['ignored_states'] = frozen_modules(model)
            for part in given['ignored_states']:
                part.to(get_device())
        if self.checkpoint_units:
            self.activation_checkpointing = dict(check_fn=_InstanceOf(tuple(classes)))
        self.model_wrapper = {'type': 'MMFullyShardedDataParallel', **given}
        return super()._wrap_model(model)

    def optim_state_dict(self) -> dict:
        """Whole states of the optimizer by the parameters' names.

        Rank 0 gets all of them; the other ranks get only the states that are not sharded.
        """
        state = FullyShardedDataParallel.optim_state_dict(self.model, self.optim_wrapper.optimizer)
        return {**self._beside_the_optimizer(self.optim_wrapper.state_dict()), **state}

    def load_optim_state_dict(self, state_dict: dict) -> None:
        """Load states by the names of parameters, or by their numbers as other trainings save."""
        shards = FullyShardedDataParallel.optim_state_dict_to_load(
            model=self.model, optim=self.optim_wrapper.optimizer, optim_state_dict=self._by_name(state_dict)
        )
        self.optim_wrapper.load_state_dict({**self._beside_the_optimizer(state_dict), **shards})

    def _by_name(self, state_dict: dict) -> dict:
        saved = [group['params'] for group in state_dict['param_groups']]
        if [len(keys) for keys in saved] != [len(names) for names in self.group_names]:
            raise CheckpointError(
                f'the optimizer of the checkpoint has {sum(map(len, saved))} parameters in {len(saved)} groups, that '
                f'of the config {sum(map(len, self.group_names))} in {len(self.group_names)}: resume with the '
                'optim_wrapper that the checkpoint was trained with'
            )
        names = dict(zip(chain(*saved), chain(*self.group_names), strict=True))
        groups = [{**group, 'params': [names[key] for key in group['params']]} for group in state_dict['param_groups']]
        return dict(state={names[key]: value for key, value in state_dict['state'].items()}, param_groups=groups)

    @staticmethod
    def _beside_the_optimizer(state_dict: dict) -> dict:
        return {key: value for key, value in state_dict.items() if key not in ('state', 'param_groups')}


def frozen_modules(model: nn.Module) -> list[nn.Module]:
    """The largest modules that have parameters but no trained ones."""
    found: list[nn.Module] = []
    inside: set[int] = set()
    for module in model.modules():
        parameters = list(module.parameters())
        if id(module) in inside or not parameters or any(parameter.requires_grad for parameter in parameters):
            continue
        found.append(module)
        inside.update(id(part) for part in module.modules())
    return found


def is_sharded(model: nn.Module) -> bool:
    """Whether :class:`ShardedStrategy` has sharded a model's weights."""
    return isinstance(model, FullyShardedDataParallel)


def whole(model: nn.Module) -> AbstractContextManager:
    """A context with the whole weights of a sharded model on every process, in CPU memory.

    All processes must enter it together. Changes of the weights are lost. A model that is not
    sharded is unchanged.
    """
    if not is_sharded(model):
        return nullcontext()
    # weights that are not sharded cannot be moved
    offload = model.sharding_strategy is not ShardingStrategy.NO_SHARD
    return FullyShardedDataParallel.summon_full_params(model, writeback=False, offload_to_cpu=offload)


def whole_outside_of_units(model: nn.Module) -> AbstractContextManager:
    """A context with the whole weights outside a sharded model's units on every process.

    All processes together can then call submodules of the model; the units gather their weights
    themselves. A model that is not sharded is unchanged.
    """
    if not is_sharded(model):
        return nullcontext()
    return FullyShardedDataParallel.summon_full_params(model, recurse=False, writeback=False)


class _InstanceOf:
    """A function with state that can be copied, because mmengine copies it."""

    def __init__(self, classes: tuple[type, ...]) -> None:
        self.classes = classes

    def __call__(self, module: nn.Module) -> bool:
        return isinstance(module, self.classes)


def _for_shards(optim_wrapper: dict) -> dict:
    """A copy of the config whose loss scaler, if there is one, is the same on all processes."""
    copied = copy.deepcopy(optim_wrapper)
    if type_name(copied.get('type')) == 'AmpOptimWrapper':
        copied.setdefault('use_fsdp', True)
    return copied


def _repeated(model: nn.Module) -> list[str]:
    """Names of the classes in the model's lists of modules."""
    lists = (module for module in model.modules() if isinstance(module, (nn.ModuleList, nn.Sequential)))
    return sorted({type(part).__name__ for parts in lists for part in parts})
