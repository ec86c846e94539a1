# Copyright (c) addp_mm contributors. Apache-2.0.
"""A layout: the names and shapes of the weights in the checkpoints of one project."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal

from torch import Tensor

#: Component that a conversion returns; 'model' is the whole ADDP, or a whole classifier.
ComponentName = Literal['model', 'backbone', 'tokenizer', 'predictor']


@dataclass(frozen=True)
class Layout:
    """One layout: functions that recognise it and rename its weights.

    All functions take the bare state dict (tensors by name, see
    :func:`~addp_mm.checkpoints.state_dict.find_state_dict`) and do not change it.

    Attributes:
        name: Name in messages, e.g. 'MAE'.
        component: Component whose state dict ``convert`` returns.
        matches: Whether a state dict has this layout, by its keys and shapes. It never raises an
            error.
        convert: Conversion to the keys of this package. It raises a ValueError with every unknown
            key. If ``component`` is 'backbone', it and ``build_args`` also take ``grid``, (height,
            width) of the positions in patches, by default None: unknown.
        build_args: Arguments of the component, inferred from the shapes of a state dict in this
            layout. The number of attention heads cannot be inferred from shapes.
    """

    name: str
    component: ComponentName
    matches: Callable[[Mapping[str, Tensor]], bool]
    convert: Callable[..., dict[str, Tensor]]
    build_args: Callable[..., dict]
