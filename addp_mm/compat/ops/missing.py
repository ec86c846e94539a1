# Copyright (c) addp_mm contributors. Apache-2.0.
"""Operators of ``mmcv._ext`` that only a compiled mmcv has."""

from collections.abc import Callable

import torch

from addp_mm.errors import UserError

_DOCS = 'https://mmcv.readthedocs.io/en/2.x/get_started/installation.html'


class MissingOpError(UserError, NotImplementedError):
    """A compiled operator of mmcv was called on an installation without compiled operators."""


def missing_op(name: str) -> Callable:
    """Replace a missing operator: ``mmcv.ops`` looks up all its operators when it is imported.

    Args:
        name: Attribute of ``mmcv._ext``.

    Returns:
        A function that raises :class:`MissingOpError` with the operator's name.

    Raises:
        AttributeError: ``name`` starts with an underscore. No operator has such a name, but
            :mod:`inspect` looks them up.
    """
    if name.startswith('_'):
        raise AttributeError(f"module 'mmcv._ext' has no attribute {name!r}")

    def op(*args, **kwargs):
        cuda = f' and CUDA {torch.version.cuda}' if torch.version.cuda else ''
        raise MissingOpError(
            f"mmcv's operator {name!r} is not available: the installed mmcv has no compiled operators, and addp_mm "
            f'only has operators that need no compilation. To get {name!r}, install an mmcv with compiled operators '
            f'for torch {torch.__version__}{cuda} (mmcv instead of mmcv-lite: {_DOCS}, or onedl-mmcv); it is then '
            'used instead of the replacements.'
        )

    op.__name__ = op.__qualname__ = name
    return op
