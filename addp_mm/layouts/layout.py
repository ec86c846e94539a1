# Copyright (c) addp_mm contributors. Apache-2.0.
"""A layout: the names and shapes of the weights in the checkpoints of one project."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from torch import Tensor

from addp_mm.errors import UserError

#: Component that a conversion returns; 'model' is the whole ADDP, or a whole classifier.
ComponentName = Literal['model', 'backbone', 'tokenizer', 'predictor']


def refuses_other_shapes(function: Callable, name: str = 'a checkpoint of this kind') -> Callable:
    """A function on state dicts that raises a ValueError where weights do not fit each other.

    It may then index, multiply and join weights as they are in every whole checkpoint.

    Args:
        function: The function.
        name: What the state dict is, for the error. Defaults to 'a checkpoint of this kind'.
    """

    @functools.wraps(function)
    def run(*args: Any, **kwargs: Any) -> Any:
        try:
            return function(*args, **kwargs)
        except (UserError, ValueError):
            raise
        except (ArithmeticError, AttributeError, LookupError, RuntimeError, TypeError) as error:
            reason = f'no {error}' if isinstance(error, KeyError) else error
            raise ValueError(
                f'not {name}: weights are missing, or have shapes that do not fit each other ({reason}). Is the file '
                'complete, and of this kind?'
            ) from error

    return run


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
            key, or if weights do not fit each other. If ``component`` is 'backbone', it and
            ``build_args`` also take ``grid``, (height, width) of the positions in patches, by
            default None: unknown.
        build_args: Arguments of the component, inferred from the shapes of a state dict in this
            layout. The number of attention heads cannot be inferred from shapes.
    """

    name: str
    component: ComponentName
    matches: Callable[[Mapping[str, Tensor]], bool]
    convert: Callable[..., dict[str, Tensor]]
    build_args: Callable[..., dict]

    def __post_init__(self) -> None:
        for name in ('convert', 'build_args'):
            object.__setattr__(self, name, refuses_other_shapes(getattr(self, name), self.name))
