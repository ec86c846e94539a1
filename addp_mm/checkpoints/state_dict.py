# Copyright (c) addp_mm contributors. Apache-2.0.
"""Find the weights in a checkpoint that was read."""

from __future__ import annotations

from collections.abc import Mapping

import torch

from addp_mm.checkpoints.errors import CheckpointError
from addp_mm.checkpoints.names import strip_wrappers
from addp_mm.errors import first_few


def find_state_dict(
    checkpoint: Mapping, source: str = 'the checkpoint', prefix: str | None = None
) -> dict[str, torch.Tensor]:
    """Find the weights in a checkpoint: under state_dict, model or module, or at its top level.

    Args:
        checkpoint: Result of :func:`~addp_mm.checkpoints.reading.load_checkpoint_file`.
        source: Name of the checkpoint in errors. Defaults to 'the checkpoint'.
        prefix: Prefix of the wanted weights' names, with its dot. If no name has it, it may start
            with the name of another mapping in the checkpoint: ``'model_ema.'``,
            ``'teacher.backbone.'``. Defaults to None: the caller has no such option.

    Returns:
        Tensors by name, without the parts that wrappers add to names, see
        :func:`~addp_mm.checkpoints.names.strip_wrappers`. Tensors from another mapping are named
        ``MAPPING.NAME``, so that they start with ``prefix``.

    Raises:
        CheckpointError: There are no tensors. The message names the mappings with tensors.
    """
    main = next(
        (checkpoint[key] for key in ('state_dict', 'model', 'module') if isinstance(checkpoint.get(key), Mapping)),
        checkpoint,
    )
    tensors = _tensors(main)
    if any(key.startswith(prefix or '') for key in tensors):
        return tensors
    others = {
        str(key): found
        for level in (checkpoint, main)
        for key, value in level.items()
        if isinstance(value, Mapping) and value is not main and (found := _tensors(value))
    }
    named = next((key for key in others if prefix and prefix.startswith(f'{key}.')), None)
    if named is not None:
        return {f'{named}.{key}': value for key, value in others[named].items()}
    if not tensors:
        raise CheckpointError(
            f'{source} holds no weights. There are no tensors under state_dict, model or module, nor at the top level, '
            f'which has: {first_few(checkpoint, count=8)}.{_advice(others, prefix)}'
        )
    return tensors


def _tensors(mapping: Mapping) -> dict[str, torch.Tensor]:
    return {
        strip_wrappers(key): value
        for key, value in mapping.items()
        if isinstance(key, str) and isinstance(value, torch.Tensor)
    }


def _advice(others: Mapping[str, Mapping], prefix: str | None) -> str:
    if not others:
        return ''
    options = ' or '.join(f"prefix='{key}.'" for key in others)
    how = 'Save that mapping as a separate file' if prefix is None else f'To load them, give {options}'
    return f' There are weights under {", ".join(others)}. {how}.'
