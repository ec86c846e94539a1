# Copyright (c) addp_mm contributors. Apache-2.0.
"""Find weights that are NaN or Inf."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping

import torch
from torch import Tensor, nn

from addp_mm.checkpoints.errors import CheckpointError
from addp_mm.checkpoints.names import strip_wrappers
from addp_mm.errors import first_few

_STATISTICS = ('running_mean', 'running_var')
_PARAMETERS = ('weight', 'bias')


def non_finite(weights: Mapping[str, Tensor]) -> Iterator[tuple[str, int]]:
    """Yield the weights with non-finite values: the name, and the number of those values.

    Args:
        weights: Tensors by name, of any types. Integers are always finite.
    """
    return _non_finite(weights, lambda values: ~values.isfinite())


def _non_finite(weights: Mapping[str, Tensor], is_faulty: Callable[[Tensor], Tensor]) -> Iterator[tuple[str, int]]:
    for name, weight in weights.items():
        if not (weight.is_floating_point() or weight.is_complex()):
            continue
        values = weight.detach()
        if values.element_size() == 1:  # torch cannot test an 8-bit float
            values = values.float()
        faulty = is_faulty(values)
        if faulty.any():
            yield name, int(torch.count_nonzero(faulty))


def must_be_finite(module: nn.Module) -> set[str]:
    """Names of a module's parameters and batch-norm statistics, without the parts of wrappers.

    Other buffers may be infinite, for example attention masks.
    """
    names = {strip_wrappers(name) for name, _ in module.named_parameters(remove_duplicate=False)}
    return names | {
        strip_wrappers(name)
        for name, _ in module.named_buffers(remove_duplicate=False)
        if name.rpartition('.')[2] in _STATISTICS
    }


def finite_by_name(weights: Mapping[str, Tensor]) -> set[str]:
    """Names of weights that must be finite in every model, for a checkpoint without its model.

    Any weight that is NaN is among them. Of those that are infinite, some of
    :func:`must_be_finite` are: a buffer, such as an attention mask, can have any other name.
    """
    tensors = {name: value for name, value in weights.items() if isinstance(value, Tensor)}
    known = {name for name in tensors if name.rpartition('.')[2] in (*_PARAMETERS, *_STATISTICS)}
    others = {name: value for name, value in tensors.items() if name not in known}
    return {strip_wrappers(name) for name in (*known, *(name for name, _ in _non_finite(others, torch.isnan)))}


def refuse_non_finite(weights: Mapping[str, Tensor], module: nn.Module | Collection[str], source: str) -> None:
    """Refuse weights that are NaN or Inf where a module would load them.

    Args:
        weights: Tensors by name, with or without the parts of wrappers.
        module: The module that would load them, or the names that :func:`must_be_finite` gave.
        source: Name of the checkpoint in the error.

    Raises:
        CheckpointError: Weights are non-finite. The message names each with the number of values.
    """
    names = must_be_finite(module) if isinstance(module, nn.Module) else module
    found = {
        name: f'{name} ({count} of {weights[name].numel()} values)'
        for name, count in non_finite({name: weights[name] for name in weights if strip_wrappers(name) in names})
    }
    if found:
        raise CheckpointError(
            f'{source} has weights that are NaN or Inf: {first_few(found.values())}. The training had failed when it '
            'was saved, or the file was changed. Use an earlier checkpoint.'
        )
