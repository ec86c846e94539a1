# Copyright (c) addp_mm contributors. Apache-2.0.
"""Frozen parts of an algorithm: without gradient, loaded strictly, and known to be loaded."""

from __future__ import annotations

from torch import nn

from addp_mm.checkpoints.errors import CheckpointError
from addp_mm.errors import first_few


def freeze(part: nn.Module, name: str) -> nn.Module:
    """Take the gradient from a module and watch what is loaded into it.

    A state dict that holds any of its tensors must hold all of them, in their shapes, and nothing
    else, whatever ``strict`` says to the loader; a complete one marks the part as loaded.

    Args:
        part: Changed in place.
        name: How errors call it.

    Returns:
        ``part``, in eval mode.
    """
    part.requires_grad_(False).eval()
    part.frozen_name = name
    part.weights_loaded = getattr(part, 'weights_loaded', False)
    part.register_load_state_dict_pre_hook(_check_and_mark)
    return part


def is_loaded(part: nn.Module) -> bool:
    """Whether weights were loaded into a module since :func:`freeze`, or :func:`mark_loaded` was called."""
    return getattr(part, 'weights_loaded', False)


def mark_loaded(part: nn.Module) -> nn.Module:
    """Declare a module's weights as meant: for a trained module that is handed over as an object. Returns it."""
    part.weights_loaded = True
    return part


def _check_and_mark(part: nn.Module, state_dict: dict, prefix: str, *_) -> None:
    given = {key[len(prefix) :]: value for key, value in state_dict.items() if key.startswith(prefix)}
    if not given:
        return
    own = part.state_dict()
    problems = [f'missing {key}' for key in own if key not in given]
    problems += [f'unexpected {key}' for key in given if key not in own]
    problems += [
        f'{key} is {tuple(given[key].shape)}, needed is {tuple(value.shape)}'
        for key, value in own.items()
        if key in given and given[key].shape != value.shape
    ]
    if problems:
        raise CheckpointError(
            f'the checkpoint does not fit the frozen {part.frozen_name}: '
            f'{first_few(problems, separator="; ")}. Frozen parts load strictly: give the '
            'checkpoint that was trained with this configuration'
        )
    part.weights_loaded = True
