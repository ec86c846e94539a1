# Copyright (c) addp_mm contributors. Apache-2.0.
"""Layouts of checkpoints that others publish, one a file: pure functions on state dicts.

:func:`find_layout` recognises a checkpoint by its keys; ``addp_mm.Pretrained`` and ``tools/model_converters`` convert
through it.
"""
from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from addp_mm.layouts.layout import Layout
from addp_mm.layouts.mage import MAGE
from addp_mm.layouts.published import PUBLISHED, PUBLISHED_ENCODER
from addp_mm.layouts.vqgan import MASKGIT, TAMING

#: In order of preference, where one's keys are among another's.
LAYOUTS: tuple[Layout, ...] = (PUBLISHED, PUBLISHED_ENCODER, MAGE, MASKGIT, TAMING)


def find_layout(state_dict: Mapping[str, Tensor]) -> Layout | None:
    """The first of :data:`LAYOUTS` that a bare state dict has.

    Args:
        state_dict: Tensors by name, without an outer ``model`` or ``state_dict``.

    Returns:
        Its layout; None where it has none of them, as weights of this package have.
    """
    return next((layout for layout in LAYOUTS if layout.matches(state_dict)), None)


__all__ = ['LAYOUTS', 'Layout', 'find_layout']
