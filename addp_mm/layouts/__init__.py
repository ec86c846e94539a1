# Copyright (c) addp_mm contributors. Apache-2.0.
"""Layouts of checkpoints that others publish, one a file: pure functions on state dicts.

:func:`find_layout` recognises a checkpoint by its keys; ``addp_mm.Pretrained`` and
``tools/model_converters`` convert through it.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping

from torch import Tensor

from addp_mm.errors import first_few
from addp_mm.layouts.beit import BEIT
from addp_mm.layouts.key_rules import without_prefix
from addp_mm.layouts.layout import Layout
from addp_mm.layouts.mage import MAGE, MAGE_TOKENIZER
from addp_mm.layouts.mmpretrain_vit import MMPRETRAIN_VIT
from addp_mm.layouts.published import PUBLISHED, PUBLISHED_ENCODER
from addp_mm.layouts.timm_vit import DINOV2, MAE, TIMM_VIT
from addp_mm.layouts.vqgan import MASKGIT, TAMING

#: In order of preference, where one's keys are among another's.
LAYOUTS: tuple[Layout, ...] = (
    PUBLISHED,
    PUBLISHED_ENCODER,
    MAGE,
    MASKGIT,
    TAMING,
    MAE,
    DINOV2,
    BEIT,
    TIMM_VIT,
    MMPRETRAIN_VIT,
)

#: Further things that a checkpoint of one of these holds; asked for by their class alone.
_CONTENTS: tuple[Layout, ...] = (MAGE_TOKENIZER,)


def find_layout(state_dict: Mapping[str, Tensor], targets: Collection[str] | None = None) -> Layout | None:
    """The first of :data:`LAYOUTS` that a bare state dict has.

    Args:
        state_dict: Tensors by name, without an outer ``model`` or ``state_dict``.
        targets: Classes of which one is wanted; a checkpoint that mainly is something else may hold
            it, too. Defaults to None: any.

    Returns:
        Its layout; None where it has none of them, as weights of this package have.
    """
    wanted = LAYOUTS if targets is None else [each for each in (*LAYOUTS, *_CONTENTS) if each.target in targets]
    return next((layout for layout in wanted if layout.matches(state_dict)), None)


def find_prefixes(state_dict: Mapping[str, Tensor], targets: Collection[str] | None = None) -> dict[str, Layout]:
    """Under which beginnings of its keys, of one name or two, a larger checkpoint has a known layout.

    Args:
        state_dict: Tensors by name.
        targets: As in :func:`find_layout`.

    Returns:
        Layouts by prefix: ``{'teacher.backbone.': …}``.
    """
    names = (key.split('.') for key in state_dict)
    prefixes = dict.fromkeys('.'.join(parts[:depth]) + '.' for parts in names for depth in (1, 2) if len(parts) > depth)
    found = {prefix: find_layout(without_prefix(state_dict, prefix), targets) for prefix in prefixes}
    return {prefix: layout for prefix, layout in found.items() if layout is not None}


def advice_on_prefix(state_dict: Mapping[str, Tensor], targets: Collection[str] | None = None) -> str:
    """What to do where no known layout was found: the prefixes under which there is one, if there are any."""
    bare = find_layout(state_dict, targets)
    if bare is not None:
        return f'It has the layout of {bare.name} without any prefix.'
    places = [
        f'{layout.name} under the prefix {prefix!r}' for prefix, layout in find_prefixes(state_dict, targets).items()
    ]
    if not places:
        return 'Check the prefix, and that it is such a model.'
    return f'It has the layout of {first_few(places, separator=" and of ")}.'


__all__ = ['advice_on_prefix', 'LAYOUTS', 'Layout', 'find_layout', 'find_prefixes']
