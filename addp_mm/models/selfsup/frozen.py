# Copyright (c) addp_mm contributors. Apache-2.0.
"""Frozen components of an algorithm: no gradient, strict loading, a mark once loaded."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import nn

from addp_mm.checkpoints.comparison import compare_weights
from addp_mm.checkpoints.errors import CheckpointError


def freeze(component: Any, name: str) -> Any:
    """Freeze a module, and check every state dict that is loaded into it.

    A state dict with any of its tensors must have all of them, in the same shapes, and no others.
    This does not depend on ``strict`` of the loader. A complete state dict marks the component as
    loaded.

    Args:
        component: The module, changed in place.
        name: Its name in error messages.

    Returns:
        ``component``, in eval mode.
    """
    component.requires_grad_(False).eval()
    component.frozen_name = name
    component.weights_loaded = is_loaded(component)
    component.register_load_state_dict_pre_hook(_check_and_mark)
    return component


def is_loaded(component: nn.Module) -> bool:
    """Whether weights were loaded since :func:`freeze`, or :func:`mark_loaded` was called."""
    return getattr(component, 'weights_loaded', False)


def mark_loaded(component: Any) -> Any:
    """Mark a trained module, which was passed as an object, as loaded. Returns the module."""
    component.weights_loaded = True
    return component


def add_missing_components(state_dict: dict, prefix: str, components: Mapping[str, nn.Module]) -> None:
    """Add the weights of loaded frozen components to a state dict that has none of them.

    A loader then does not report them as missing.

    Args:
        state_dict: State dict that is loaded into the algorithm, changed in place.
        prefix: Prefix of its names.
        components: Frozen components by their name in the algorithm.
    """
    for name, component in components.items():
        if is_loaded(component) and not any(key.startswith(f'{prefix}{name}.') for key in state_dict):
            state_dict.update({f'{prefix}{name}.{key}': value for key, value in component.state_dict().items()})


def _check_and_mark(component: Any, state_dict: dict, prefix: str, *_) -> None:
    given = {key[len(prefix) :]: value for key, value in state_dict.items() if key.startswith(prefix)}
    if not given:
        return
    comparison = compare_weights(given, component)
    if not comparison.is_exact:
        raise CheckpointError(
            f'the checkpoint does not fit the frozen {component.frozen_name}: {comparison.differences()}. '
            'Frozen components load strictly: give the checkpoint that was trained with this config'
        )
    component.weights_loaded = True
