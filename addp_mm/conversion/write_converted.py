# Copyright (c) addp_mm contributors. Apache-2.0.
"""The last step of every converter: prove that the weights fit, then write them with the config that they fit."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from addp_mm.checkpoints.safetensors_file import write_safetensors
from addp_mm.errors import first_few

ENDINGS = ('.safetensors', '.pth')

#: How far ours and the original implementation may be apart, in parts of the largest value: float32
# through up to 40
#: blocks. A wrong norm, shortcut or order of heads is apart by more than a tenth.
TOLERANCE = 1e-3


def check_destination(dst: str, endings: Sequence[str] = ENDINGS, has_config: bool = True) -> None:
    """Refuse a place where converted weights cannot be written.

    Args:
        dst: File to write.
        endings: Those of which the name has to have one.
        has_config: Whether a config goes beside it.

    Raises:
        ValueError: The name has another ending.
        FileExistsError: The file, or the config that would go beside it, exists.
    """
    if not dst.endswith(tuple(endings)):
        raise ValueError(f'{dst} must end in {" or ".join(endings)}')
    for path in (dst, config_beside(dst)) if has_config else (dst,):
        if os.path.exists(path):
            raise FileExistsError(f'{path} exists already: choose another name or remove it')


def config_beside(dst: str) -> str:
    """``weights.json`` for ``weights.safetensors``."""
    return str(Path(dst).with_suffix('.json'))


def write_converted(
    dst: str, name: str, config: Mapping, weights: Mapping[str, Tensor], run: Callable[[nn.Module], str]
) -> str:
    """Build the module of a config, load converted weights strictly, run it once, and write both.

    Args:
        dst: File of the weights; see :func:`check_destination`. Nothing is written unless all went
            well.
        name: What configs call such a module: 'model', 'tokenizer', 'predictor', 'backbone'.
        config: Config of the module, with its ``type``.
        weights: Its whole state dict.
        run: Runs the module, in eval mode and without gradients, and says in words what came out.

    Returns:
        What was proved and written, in words. The config beside ``dst`` is ``{name: config}`` with
        an ``init_cfg`` that loads the weights beside it, wherever both are moved together;
        mmengine's ``Config.fromfile`` and ``_base_`` read it.

    Raises:
        ValueError: ``dst`` is no place for weights, they do not fit the config, or the module's
            result is not finite.
        FileExistsError: There is such a file already.
    """
    from addp_mm.registry import MODELS

    check_destination(dst)
    module = MODELS.build(dict(config))
    missing = [key for key in module.state_dict() if key not in weights]
    if missing:
        raise ValueError(
            f'the file is incomplete: it lacks {first_few(missing)} of {config["type"]} of the sizes read '
            'from it (names as converted)'
        )
    try:
        module.load_state_dict(weights, strict=True)
    except RuntimeError as error:
        raise ValueError(f'the weights do not fit {config["type"]} of the sizes read from them: {error}') from error
    with torch.no_grad():
        proof = run(module.eval())
    # mmengine fills in the folder of the config that it reads
    loads_them = dict(type='addp_mm.Pretrained', checkpoint=f'{{{{ fileDirname }}}}/{Path(dst).name}', strict=True)
    text = json.dumps({name: {**config, 'init_cfg': loads_them}}, indent=2)
    Path(dst).parent.mkdir(parents=True, exist_ok=True)
    if dst.endswith('.safetensors'):
        write_safetensors(dst, weights)
    else:
        partial = f'{dst}.partial'
        torch.save(dict(state_dict=dict(weights)), partial)
        os.replace(partial, dst)
    Path(config_beside(dst)).write_text(text + '\n')
    return (
        f'{config["type"].split(".")[-1]}: {len(weights)} tensors, {sum(w.numel() for w in weights.values()):,} '
        f'parameters\nforward pass: {proof}\nwrote {dst} and {config_beside(dst)}'
    )


def compared(**results: tuple[Tensor, Tensor]) -> str:
    """Hold results against those of the original implementation.

    Args:
        results: Ours and theirs, of one shape, under the name that messages give them.

    Returns:
        Shapes, and how far each pair is apart in parts of the largest value, in words.

    Raises:
        ValueError: A result is not finite, or a pair is further apart than :data:`TOLERANCE`.
    """
    shapes = finite(**{name: ours for name, (ours, _) in results.items()})
    apart = {name: _apart(ours, theirs) for name, (ours, theirs) in results.items()}
    too_far = [f'{name} by {value:.1e}' for name, value in apart.items() if not value <= TOLERANCE]
    if too_far:
        raise ValueError(
            f'the converted weights and the original implementation disagree: {", ".join(too_far)} of the '
            'largest value; nothing was written'
        )
    return (
        f'{shapes}; the original implementation differs by '
        f'{", ".join(f"{value:.1e} ({name})" for name, value in apart.items())} of the largest value'
    )


def _apart(ours: Tensor, theirs: Tensor) -> float:
    if ours.shape != theirs.shape:
        raise ValueError(
            f'the converted weights give {tuple(ours.shape)}, the original implementation {tuple(theirs.shape)}'
        )
    return ((ours - theirs).abs().max() / theirs.abs().max()).item()


def finite(**results: Tensor) -> str:
    """Shapes of results in words.

    Raises:
        ValueError: One of them is not finite.
    """
    for name, value in results.items():
        if not value.isfinite().all():
            raise ValueError(
                f'the forward pass gives {name} that are not finite: the weights are damaged, or were '
                'made for another architecture'
            )
    return ', '.join(f'{name} {tuple(value.shape)}' for name, value in results.items())
