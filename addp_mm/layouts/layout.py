# Copyright (c) addp_mm contributors. Apache-2.0.
"""A layout: the names and shapes that one project gives to the weights in its checkpoints."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal

from torch import Tensor

#: Component of ADDP that a conversion gives; 'model' is the whole ADDP.
ComponentName = Literal['model', 'backbone', 'tokenizer', 'predictor']


@dataclass(frozen=True)
class Layout:
    """One foreign layout: how to recognise it, and how to rename its weights.

    All functions take the bare state dict (tensors by name, see
    :func:`~addp_mm.checkpoints.state_dict.find_state_dict`) and do not change it.

    Attributes:
        name: Name in messages, e.g. 'MAE'.
        component: Component whose state dict ``convert`` returns.
        matches: Whether a state dict has this layout, judged by its keys and shapes. Never raises.
        convert: Conversion into the keys of this package. Raises ValueError that names every key
            that it neither uses nor knows as unused. If ``component`` is 'backbone', it and
            ``build_args`` also take ``grid``, (height, width) of the positions in patches.
            Defaults to None: not known.
        build_args: Arguments of the component that follow from the shapes, from a state dict in
            this layout. The number of attention heads does not follow from shapes.
    """

    name: str
    component: ComponentName
    matches: Callable[[Mapping[str, Tensor]], bool]
    convert: Callable[..., dict[str, Tensor]]
    build_args: Callable[..., dict]
