# Copyright (c) addp_mm contributors. Apache-2.0.
"""Layouts of other projects' checkpoints, one per file: pure functions on state dicts.

:func:`find_layout` recognises a checkpoint by its keys. ``addp_mm.Pretrained`` and
``tools/model_converters`` convert checkpoints with these layouts.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping

from torch import Tensor

from addp_mm.errors import first_few
from addp_mm.layouts.beit import BEIT
from addp_mm.layouts.held_model import held_model
from addp_mm.layouts.key_rules import without_prefix
from addp_mm.layouts.layout import Layout
from addp_mm.layouts.mage import MAGE
from addp_mm.layouts.mmpretrain_vit import MMPRETRAIN_VIT
from addp_mm.layouts.published import PUBLISHED, PUBLISHED_ENCODER
from addp_mm.layouts.timm_vit import DINOV2, MAE, TIMM_VIT
from addp_mm.layouts.volo import VOLO
from addp_mm.layouts.vqgan import MASKGIT, TAMING

#: All layouts. If several match a checkpoint, the first one is used.
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
    VOLO,
)


def find_layout(state_dict: Mapping[str, Tensor], components: Collection[str] | None = None) -> Layout | None:
    """Find the layout of a bare state dict.

    Args:
        state_dict: Tensors by name, without an outer ``model`` or ``state_dict``.
        components: The wanted components; see :class:`~addp_mm.layouts.layout.Layout`. Defaults to
            None: any.

    Returns:
        The first layout that matches; None if no layout matches, as for weights of this package.
    """
    wanted = [layout for layout in LAYOUTS if components is None or layout.component in components]
    return next((layout for layout in wanted if layout.matches(state_dict)), None)


def find_prefixes(state_dict: Mapping[str, Tensor], components: Collection[str] | None = None) -> dict[str, Layout]:
    """Find prefixes of one or two names whose weights have a known layout.

    Args:
        state_dict: Tensors by name.
        components: As in :func:`find_layout`. Defaults to None.

    Returns:
        Layouts by prefix: ``{'teacher.backbone.': …}``.
    """
    names = (key.split('.') for key in state_dict)
    prefixes = dict.fromkeys('.'.join(parts[:depth]) + '.' for parts in names for depth in (1, 2) if len(parts) > depth)
    found = {prefix: find_layout(without_prefix(state_dict, prefix), components) for prefix in prefixes}
    return {prefix: layout for prefix, layout in found.items() if layout is not None}


def held_by(state_dict: Mapping[str, Tensor], module: Mapping[str, Tensor]) -> str:
    """The model whose weights a checkpoint holds, if the module is another one, or ''.

    Args:
        state_dict: Tensors by name.
        module: The module's weights.

    Returns:
        A phrase such as "VOLO" or "ResNet (under the prefix 'backbone.')".
    """
    held, own = held_model(state_dict, LAYOUTS), held_model(module, LAYOUTS)
    return '' if held is None or (own and own.kind == held.kind and not held.prefix) else str(held)


def advice_on_prefix(state_dict: Mapping[str, Tensor], components: Collection[str] | None = None) -> str:
    """A sentence for an error: the prefixes of weights with a known layout.

    Args:
        state_dict: Tensors by name.
        components: As in :func:`find_layout`. Defaults to None.
    """
    bare = find_layout(state_dict, components)
    if bare is not None:
        return f'It has the layout of {bare.name} without a prefix.'
    found = find_prefixes(state_dict, components)
    if not found:
        return 'Check the prefix and the kind of model.'
    phrases = [f'{layout.name} under the prefix {prefix!r}' for prefix, layout in found.items()]
    return f'It has the layout of {first_few(phrases, separator=" and of ")}.'


__all__ = ['LAYOUTS', 'Layout', 'advice_on_prefix', 'find_layout', 'find_prefixes', 'held_by']
