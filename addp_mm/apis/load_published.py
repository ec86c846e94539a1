# Copyright (c) addp_mm contributors. Apache-2.0.
"""Released ADDP weights as a model."""

from __future__ import annotations

from collections.abc import Mapping
from os import PathLike, fspath
from typing import TYPE_CHECKING

from torch import Tensor

from addp_mm.checkpoints.reading import find_state_dict, load_checkpoint_file
from addp_mm.layouts.published import convert_published, published_settings

if TYPE_CHECKING:
    from addp_mm.models.selfsup import ADDP


def load_published(
    checkpoint: Mapping | str | PathLike,
    *,
    num_heads: int | None = None,
    decoder_num_heads: int | None = None,
    predictor_num_heads: int | None = None,
    predictor_decoder_num_heads: int | None = None,
) -> ADDP:
    """Build ADDP from weights in the published key layout.

    All sizes are read from the tensors, except for the numbers of attention heads. Those of the
    published models (ViT-B and ViT-L) follow from their width. Give them for models of other
    widths.

    Args:
        checkpoint: A state dict, or a file with one, either bare or as ``model`` or ``state_dict``
            of a training checkpoint.
        num_heads: Attention heads of the encoder. Defaults to None: 12 at a width of 768, 16 at
            1024.
        decoder_num_heads: Attention heads of the token decoder. Defaults to None: 16 at these
            widths.
        predictor_num_heads: Attention heads of the predictor's encoder. Defaults to None: 12 at a
            width of 768, 16 at 1024.
        predictor_decoder_num_heads: Attention heads of the predictor's decoder. Defaults to None:
            ``decoder_num_heads`` if that is given, else 16 at these widths.

    Returns:
        The model on the CPU, in eval mode.

    Raises:
        FileNotFoundError: There is no such file.
        CheckpointError: The file is not a checkpoint, is damaged, or contains more than data.
        ValueError: A key is unknown, or a number of heads is needed. The message names it.
        RuntimeError: A tensor is missing or contradicts the sizes of the others.

    Example:
        >>> model = load_published('addp-vit-base-16.pth')  # doctest: +SKIP
        >>> features = model.extract_feat(images)  # doctest: +SKIP
    """
    # imports mmpretrain, which other functions of this package do not need
    from addp_mm.models.selfsup import ADDP

    converted = convert_published(read_published(checkpoint))
    settings = published_settings(
        converted, num_heads, decoder_num_heads, predictor_num_heads, predictor_decoder_num_heads
    )
    model = ADDP(**settings)
    model.load_state_dict(converted, strict=True)
    return model.eval()


def read_published(checkpoint: Mapping | str | PathLike) -> dict[str, Tensor]:
    """State dict in the published layout, from a file or a mapping, wrapped or bare.

    Raises:
        FileNotFoundError: There is no such file.
        CheckpointError: The file is not a checkpoint, is damaged, or contains more than data.
    """
    if isinstance(checkpoint, Mapping):
        return find_state_dict(checkpoint)
    return find_state_dict(load_checkpoint_file(checkpoint), fspath(checkpoint))
