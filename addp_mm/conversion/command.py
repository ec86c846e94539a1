# Copyright (c) addp_mm contributors. Apache-2.0.
"""Common functions of ``tools/model_converters``: arguments, and reading the source."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # so that --help does not import torch
    from torch import Tensor


def converter_parser(
    description: str | None, src: str, dst: str = 'file to write (.safetensors or .pth); must not exist'
) -> argparse.ArgumentParser:
    """A parser with the arguments SRC and DST.

    Args:
        description: Text of ``--help``, shown with its line breaks.
        src: Help of SRC.
        dst: Help of DST. Defaults to that of a file of weights.
    """
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('src', metavar='SRC', help=src)
    parser.add_argument('dst', metavar='DST', help=dst)
    return parser


def read_source(src: str, prefix: str = '') -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Read the weights of a checkpoint, and select those under a prefix.

    Args:
        src: Checkpoint.
        prefix: Prefix of the wanted names, with its dot; see
            :func:`~addp_mm.checkpoints.state_dict.find_state_dict`. Defaults to ''.

    Returns:
        All weights, and those that start with ``prefix``, without it.

    Raises:
        CheckpointError: The file cannot be read or has no weights.
    """
    from addp_mm.checkpoints.reading import load_checkpoint_file
    from addp_mm.checkpoints.state_dict import find_state_dict
    from addp_mm.layouts.key_rules import without_prefix

    weights = find_state_dict(load_checkpoint_file(src), src, prefix)
    return weights, without_prefix(weights, prefix)
