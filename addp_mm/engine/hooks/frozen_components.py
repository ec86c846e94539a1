# Copyright (c) addp_mm contributors. Apache-2.0.
"""Checks of the frozen tokenizer and predictor before pre-training starts."""

from __future__ import annotations

from typing import Any

from mmengine import dist
from torch import nn

from addp_mm.checkpoints.errors import CheckpointError
from addp_mm.checkpoints.fingerprint import module_fingerprint


def check_loaded(model: Any) -> None:
    """Refuse frozen components with random weights.

    Args:
        model: A model with ``unloaded_components()``, such as ADDP.

    Raises:
        CheckpointError: No weights were loaded into a frozen component.
    """
    names = model.unloaded_components()
    if names:
        raise CheckpointError(
            f'no weights were loaded into the frozen {" and ".join(names)}: pre-training would '
            "learn from random targets. Give each an init_cfg=dict(type='addp_mm.Pretrained', "
            'checkpoint=...), or a checkpoint of the whole algorithm as load_from'
        )


def check_equal_on_all_ranks(components: dict[str, nn.Module]) -> None:
    """Compare the components' fingerprints over all ranks.

    Args:
        components: Modules by name.

    Raises:
        CheckpointError: A component differs from that of rank 0 on any rank; raised on every rank.
    """
    prints = dist.all_gather_object({name: module_fingerprint(component) for name, component in components.items()})
    for name in components:
        different = [rank for rank, found in enumerate(prints) if found[name] != prints[0][name]]
        if different:
            raise CheckpointError(
                f'the {name} of rank(s) {different} differs from that of rank 0; every rank must '
                'load the same frozen weights: check that all machines see the same checkpoint '
                'file'
            )
