# Copyright (c) addp_mm contributors. Apache-2.0.
"""The last step of every converter: check the converted weights; write them with a config."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from addp_mm.checkpoints.atomic_write import write_json, write_safetensors
from addp_mm.checkpoints.comparison import load_exactly
from addp_mm.checkpoints.saving import write_checkpoint

ENDINGS = ('.safetensors', '.pth')


def check_destination(dst: str, endings: Sequence[str] = ENDINGS, has_config: bool = True) -> None:
    """Check that converted weights can be written to a file.

    Args:
        dst: File to write.
        endings: Allowed endings of the name. Defaults to :data:`ENDINGS`.
        has_config: Whether a config is written next to it. Defaults to True.

    Raises:
        ValueError: The name has another ending.
        FileExistsError: The file or the config next to it exists.
    """
    if not dst.endswith(tuple(endings)):
        raise ValueError(f'{dst} must end in {" or ".join(endings)}')
    for path in (dst, config_beside(dst)) if has_config else (dst,):
        if os.path.exists(path):
            raise FileExistsError(f'{path} exists: choose another name or remove it')


def config_beside(dst: str) -> str:
    """``weights.json`` for ``weights.safetensors``."""
    return str(Path(dst).with_suffix('.json'))


def write_converted(
    dst: str, name: str, config: Mapping, weights: Mapping[str, Tensor], run: Callable[[Any], str]
) -> str:
    """Build a module from its config, load converted weights, run it, and write both.

    Args:
        dst: File of the weights; see :func:`check_destination`. Nothing is written after an error.
        name: Name of the component in configs: 'model', 'tokenizer', 'predictor', 'backbone'.
        config: Config of the module, with its ``type``.
        weights: Its whole state dict.
        run: Function that runs the module, in eval mode and without gradients, and returns a
            description of the result.

    Returns:
        A description of the check and of the files. The config next to ``dst`` is
        ``{name: config}`` with an ``init_cfg`` that loads the weights from the same folder.
        mmengine's ``Config.fromfile``, ``_base_`` and the tools read it.

    Raises:
        CheckpointError: The weights do not fit the config.
        ValueError: The name of ``dst`` has another ending, or ``run`` found a difference.
        FileExistsError: One of the files exists.
    """
    from addp_mm.registry import MODELS

    check_destination(dst)
    module = MODELS.build(dict(config))
    load_exactly(weights, module, 'the checkpoint, with the sizes inferred from it,')
    with torch.no_grad():
        result = run(module.eval())
    if dst.endswith('.safetensors'):
        write_safetensors(dst, weights)
    else:
        write_checkpoint(dict(state_dict=dict(weights)), dst)
    # mmengine replaces fileDirname by the folder of the config
    init_cfg = dict(type='addp_mm.Pretrained', checkpoint=f'{{{{ fileDirname }}}}/{Path(dst).name}', strict=True)
    write_json(config_beside(dst), {name: {**config, 'init_cfg': init_cfg}})
    return (
        f'{type(module).__name__}: {len(weights)} tensors, {sum(w.numel() for w in weights.values()):,} '
        f'parameters\nforward pass: {result}\nwrote {dst} and {config_beside(dst)}'
    )
