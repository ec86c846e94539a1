# Copyright (c) addp_mm contributors. Apache-2.0.
"""Released ADDP weights as a model."""

from __future__ import annotations

from collections.abc import Mapping
from os import PathLike, fspath

from torch import Tensor

from addp_mm.checkpoints.reading import find_state_dict, load_checkpoint_file
from addp_mm.layouts.published import convert_published, published_settings


def load_published(
    checkpoint: Mapping | str | PathLike,
    *,
    num_heads: int,
    decoder_num_heads: int,
    predictor_num_heads: int,
    predictor_decoder_num_heads: int | None = None,
):
    """Build ADDP from weights in the published key layout.

    All sizes are read from the tensors; numbers of heads cannot be. The published models have 12
    (B) or 16 (L) heads in the encoder and 16 in the token decoder, and the predictor has as many in
    its encoder and decoder.

    Args:
        checkpoint: A state dict, or a file that holds one, bare or as ``model`` or ``state_dict``
            of a training checkpoint.
        num_heads: Attention heads of the encoder.
        decoder_num_heads: Attention heads of the token decoder.
        predictor_num_heads: Attention heads of the predictor's encoder.
        predictor_decoder_num_heads: Attention heads of the predictor's decoder. Default:
            ``decoder_num_heads``, as in the published models.

    Returns:
        :class:`~addp_mm.models.selfsup.ADDP` on the CPU, in eval mode.

    Raises:
        FileNotFoundError: If there is no such file.
        CheckpointError: If the file is no checkpoint, is damaged, or holds more than data.
        ValueError: If a key is unaccounted for.
        RuntimeError: If a tensor is missing or has another shape than the rest implies.

    Example:
        >>> model = load_published('addp_base.pth', num_heads=12, decoder_num_heads=16,
        ...                        predictor_num_heads=12)                                    # doctest: +SKIP
        >>> features = model.extract_feat(images)                                             # doctest: +SKIP
    """
    from addp_mm.models.selfsup import ADDP  # pulls in mmpretrain, which the rest of the package's APIs need not

    converted = convert_published(read_published(checkpoint))
    model = ADDP(
        **published_settings(
            converted,
            num_heads,
            decoder_num_heads,
            predictor_num_heads,
            predictor_decoder_num_heads or decoder_num_heads,
        )
    )
    model.load_state_dict(converted, strict=True)
    return model.eval()


def read_published(checkpoint: Mapping | str | PathLike) -> dict[str, Tensor]:
    """The state dict in the published layout from a file or a mapping, wrapped or bare.

    Raises:
        FileNotFoundError: If there is no such file.
        CheckpointError: If the file is no checkpoint, is damaged, or holds more than data.
    """
    if isinstance(checkpoint, Mapping):
        return find_state_dict(checkpoint)
    return find_state_dict(load_checkpoint_file(checkpoint), fspath(checkpoint))
