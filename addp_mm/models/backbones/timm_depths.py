# Copyright (c) addp_mm contributors. Apache-2.0.
"""Depths of the parameters of timm's models; freeze those of the first stages."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from timm.models import group_parameters
from timm.optim import auto_group_layers
from torch import nn

from addp_mm.models.layers import OptionError


class LayerDepths:
    """Depth of every parameter in timm's own groups: the stem is 0, the first block 1, and so on.

    The final norm belongs to the last block, and the layers after the backbone have one depth more.

    Args:
        model: A model of timm without its head.
    """

    def __init__(self, model: Any) -> None:
        # Else timm counts them off, and no stage ends where one of them does.
        self.has_groups = hasattr(model, 'group_matcher')
        self.depths: dict[str, int] = (
            group_parameters(model, model.group_matcher(coarse=False), reverse=True)
            if self.has_groups
            else auto_group_layers(model)
        )
        self._modules = [name for name, _ in model.named_modules()]
        # Parameters that no group names, such as the norm after the pooling, follow the last block.
        self.number = max(self.depths.values(), default=0) + 2

    def of(self, name: str) -> int:
        """Depth of a parameter; that of its neighbours if the model got it later, as an adapter."""
        if name in self.depths:
            return self.depths[name]
        parent = name
        while '.' in parent:
            parent = parent.rpartition('.')[0]
            near = [depth for other, depth in self.depths.items() if other.startswith(f'{parent}.')]
            if near:
                return max(near)
        return self.number - 1

    def of_module(self, name: str) -> int | None:
        """Greatest depth of the parameters of a module, or of those before it if it has none.

        None if it is not known.
        """
        if not self.has_groups:
            return None
        inside = [depth for other, depth in self.depths.items() if other.startswith(f'{name}.')]
        if inside or name not in self._modules:
            return max(inside, default=None)
        before = self._modules[: self._modules.index(name)]
        return max((depth for other, depth in self.depths.items() if other.rpartition('.')[0] in before), default=0)


def stage_modules(feature_modules: Sequence[str], depths: LayerDepths) -> list[str]:
    """Names of the modules at which the stages end, without the stem.

    Empty if the model does not say it: some models of timm name modules that they do not have.
    """
    ends = [depths.of_module(name) for name in feature_modules]
    if None in ends:
        return []
    return [name for name, depth in zip(feature_modules, ends, strict=True) if depth]


def freeze_stages(
    model: Any, depths: LayerDepths, stages: Sequence[str], frozen_stages: int, model_name: str
) -> list[str]:
    """Freeze the parameters of the stem and of the first stages.

    Args:
        model: A model of timm.
        depths: Depths of its parameters.
        stages: Names of the modules at which its stages end.
        frozen_stages: 0 freezes the stem, n also the first n stages, their number everything; -1
            freezes nothing.
        model_name: timm's name of the model, for errors.

    Returns:
        Names of the modules that must stay in eval mode.

    Raises:
        OptionError: The model has fewer stages, or does not say where they end.
    """
    if not stages and frozen_stages >= 0:
        raise OptionError(
            f'frozen_stages={frozen_stages}: timm does not say where the stages of {model_name} end. Use '
            'another model, or frozen_stages=-1'
        )
    if not -1 <= frozen_stages <= len(stages):
        raise OptionError(f'frozen_stages must be in [-1, {len(stages)}], got {frozen_stages}')
    if frozen_stages < 0:
        return []
    depth = depths.of_module(stages[frozen_stages - 1]) if frozen_stages else 0
    if depth is None or frozen_stages == len(stages):  # a stage that no map needs, or all of them
        depth = depths.number
    params, names = _frozen_parts(model, depths, depth)
    for param in params:
        param.requires_grad_(False)
    return names


def _frozen_parts(model: Any, depths: LayerDepths, depth: int) -> tuple[list[nn.Parameter], list[str]]:
    """Parameters up to a depth, and names of the largest modules that have no other parameters."""
    frozen = {name for name, _ in model.named_parameters() if depths.of(name) <= depth}
    names = {name for name, _ in model.named_parameters()}
    params = [param for name, param in model.named_parameters() if name in frozen]

    def whole(prefix: str, module: nn.Module) -> list[str]:
        inside = {name for name in names if name.startswith(prefix)}
        if inside <= frozen and (inside or prefix.count('.') == 1):
            return [prefix.rstrip('.')]
        return [part for name, child in module.named_children() for part in whole(f'{prefix}{name}.', child)]

    return params, whole('', model)
