# Copyright (c) addp_mm contributors. Apache-2.0.
"""Build a model from released ADDP weights."""

from __future__ import annotations

from collections.abc import Mapping
from os import PathLike, fspath
from typing import TYPE_CHECKING

from addp_mm.checkpoints.comparison import load_exactly
from addp_mm.checkpoints.reading import load_checkpoint_file
from addp_mm.checkpoints.state_dict import find_state_dict
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
    """Build ADDP from weights in the published layout.

    All sizes but the numbers of attention heads follow from the shapes. The published models have
    12 (B) or 16 (L) heads in the encoders of backbone and predictor, and 16 in their decoders.

    Args:
        checkpoint: A state dict, or a file with one, bare or as ``model`` or ``state_dict`` of a
            training checkpoint.
        num_heads: Attention heads of the encoder. Defaults to the published number for its width.
        decoder_num_heads: Attention heads of the token decoder. Defaults to the published number.
        predictor_num_heads: Attention heads of the predictor's encoder. Defaults to the published
            number.
        predictor_decoder_num_heads: Attention heads of the predictor's decoder. Defaults to
            ``decoder_num_heads``, else to the published number.

    Returns:
        The model on the CPU, in eval mode.

    Raises:
        FileNotFoundError: The file does not exist.
        CheckpointError: The file is damaged, is not a checkpoint, or holds more than data; or a
            tensor is missing or has a shape that does not fit the others.
        ValueError: A key is unknown, or no published model has this width and a number of heads is
            not given.

    Example:
        >>> model = load_published('addp-vit-base-16.pth')    # doctest: +SKIP
        >>> features = model.extract_feat(images)             # doctest: +SKIP
    """
    from addp_mm.models.selfsup import ADDP  # imports mmpretrain, which other functions here do not need

    found = checkpoint if isinstance(checkpoint, Mapping) else load_checkpoint_file(checkpoint)
    source = 'the checkpoint' if isinstance(checkpoint, Mapping) else fspath(checkpoint)
    converted = convert_published(find_state_dict(found, source))
    model = ADDP(
        **published_settings(converted, num_heads, decoder_num_heads, predictor_num_heads, predictor_decoder_num_heads)
    )
    load_exactly(converted, model, source)
    return model.eval()
