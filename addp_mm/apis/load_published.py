# Copyright (c) addp_mm contributors. Apache-2.0.
"""Released ADDP weights as a model."""
from __future__ import annotations

import argparse
import pickle
from collections.abc import Mapping
from os import PathLike, fspath

import torch
from torch import Tensor

from addp_mm.apis.published import convert_published, published_settings


def load_published(checkpoint: Mapping[str, Tensor] | str | PathLike, *, num_heads: int, decoder_num_heads: int,
                   predictor_num_heads: int, predictor_decoder_num_heads: int | None = None):
    """Build ADDP from weights in the published key layout.

    All sizes are read from the tensors; numbers of heads cannot be. The published models have 12 (B) or 16 (L) heads
    in the encoder and 16 in the token decoder.

    Args:
        checkpoint: A state dict, or a file that holds one, bare or as ``model`` or ``state_dict`` of a training
            checkpoint.
        num_heads: Attention heads of the encoder.
        decoder_num_heads: Attention heads of the token decoder.
        predictor_num_heads: Attention heads of the predictor's encoder.
        predictor_decoder_num_heads: Attention heads of the predictor's decoder. Default: ``decoder_num_heads``, as in
            the published models.

    Returns:
        :class:`~addp_mm.models.selfsup.ADDP` on the CPU, in eval mode.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If the file is no checkpoint or holds more than tensors and settings, or a key is unaccounted for.
        RuntimeError: If a tensor is missing or has another shape than the rest implies.

    Example:
        >>> model = load_published('addp_base.pth', num_heads=12, decoder_num_heads=16,
        ...                        predictor_num_heads=16)                                    # doctest: +SKIP
        >>> features = model.extract_feat(images)                                             # doctest: +SKIP
    """
    from addp_mm.models.selfsup import ADDP  # pulls in mmpretrain, which the rest of the package's APIs need not

    converted = convert_published(read_published(checkpoint))
    model = ADDP(**published_settings(converted, num_heads, decoder_num_heads, predictor_num_heads,
                                      predictor_decoder_num_heads or decoder_num_heads))
    model.load_state_dict(converted, strict=True)
    return model.eval()


def read_published(checkpoint: Mapping[str, Tensor] | str | PathLike) -> dict[str, Tensor]:
    """The state dict in the published layout from a file or a mapping, wrapped or bare.

    Published files also hold the training options as an ``argparse.Namespace``: beside tensors the only class that is
    let through.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If the file is no checkpoint or carries anything else.
    """
    if not isinstance(checkpoint, Mapping):
        checkpoint = _read_file(fspath(checkpoint))
    for wrapper in ('model', 'state_dict'):
        if isinstance(checkpoint.get(wrapper), Mapping):
            checkpoint = checkpoint[wrapper]
    strangers = [str(key) for key, value in checkpoint.items() if not isinstance(value, Tensor)]
    if strangers:
        raise ValueError(f'the checkpoint holds entries that are no tensors: {", ".join(strangers[:10])}')
    return dict(checkpoint)


def _read_file(path: str) -> Mapping:
    if path.endswith('.safetensors'):
        from safetensors import SafetensorError
        from safetensors.torch import load_file
        try:
            return load_file(path)
        except SafetensorError as error:
            raise ValueError(f'{path} is no safetensors file, or is cut off: {error}') from error
    try:
        with torch.serialization.safe_globals([argparse.Namespace]):
            checkpoint = torch.load(path, map_location='cpu', weights_only=True)
    except FileNotFoundError:
        raise
    except pickle.UnpicklingError as error:
        raise ValueError(f'{path} is refused: it is no checkpoint, or holds more than tensors and training options '
                         f'({str(error).splitlines()[0]})') from error
    except (RuntimeError, EOFError) as error:
        raise ValueError(f'{path} is no checkpoint, or is cut off: {error}') from error
    if not isinstance(checkpoint, Mapping):
        raise ValueError(f'{path} holds a {type(checkpoint).__name__} instead of a state dict')
    return checkpoint
