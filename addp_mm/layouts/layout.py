# Copyright (c) addp_mm contributors. Apache-2.0.
"""What the package knows about one way of naming weights."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from torch import Tensor

#: Classes whose keys a conversion can give.
TARGETS = ('ADDP', 'ADDPViT', 'VQTokenizer', 'MaskedTokenPredictor')


@dataclass(frozen=True)
class Layout:
    """One foreign layout of a checkpoint: how to recognise it, and what its weights are called here.

    All functions take the bare state dict (tensors by name, see
    :func:`~addp_mm.checkpoints.reading.find_state_dict`) and leave it as it is.

    Attributes:
        name: What messages call it, e.g. 'MAE'.
        target: Class of this package whose state dict comes out; one of :data:`TARGETS`.
        matches: Whether a state dict has this layout, told by its keys and shapes; never raises.
        convert: Translation into the keys of ``target``. Raises ValueError, naming every key that
            it neither uses nor knows as unused. Where ``target`` is 'ADDPViT', it and
            ``build_args`` also take ``grid``, (height, width) of the positions in patches, None where it is not known.
        build_args: Arguments of ``target`` that the tensors tell (sizes), from a state dict in this
            layout. Numbers of attention heads cannot be read from tensors and are never among them.

    Raises:
        ValueError: ``target`` is none of :data:`TARGETS`.
    """

    name: str
    target: str
    matches: Callable[[Mapping[str, Tensor]], bool]
    convert: Callable[..., dict[str, Tensor]]
    build_args: Callable[..., dict]

    def __post_init__(self) -> None:
        if self.target not in TARGETS:
            raise ValueError(f'target must be one of {TARGETS}, got {self.target!r}')
