# Copyright (c) addp_mm contributors. Apache-2.0.
"""What the heads of a config expect: the maps that its own backbone and necks give them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from mmengine.config import Config

from addp_mm.config.nodes import nodes_below
from addp_mm.config.type_names import type_name
from addp_mm.swap.feature_maps import FeatureMaps, feature_maps, maps_after
from addp_mm.swap.plan import SwapError

# Parts of a model that belong to its own backbone, and why.
_WIRED = {
    'TridentFasterRCNN': 'it has three branches, which TridentResNet makes',
    'RFP': 'the neck runs its own ResNet on the maps again',
    'DDRHead': 'it reads the two branches of DDRNet',
    'PIDHead': 'it reads the three branches of PIDNet',
    'DPTHead': "it reads the class token beside each map, which only mmpretrain's ViT returns",
    'CornerHead': 'it reads the two stacks of an hourglass network',
    'CentripetalHead': 'it reads the two stacks of an hourglass network',
    'TrackDataPreprocessor': 'swaps serve models of single images, and this one reads videos',
    'MultiBranchDataPreprocessor': 'a teacher and a student must have the same backbone',
    'ReIDDataPreprocessor': 'swaps serve detectors, and this model finds persons again',
}


@dataclass(frozen=True)
class Expected:
    """Maps in a model of mmdet or mmsegmentation.

    Args:
        backbone: What the backbone of the config gives.
        necks: Configs of the necks, in their order.
        after_first: The maps after the first neck, or those of the backbone if there is no neck.
        heads: What the heads get: the maps after the last neck.
    """

    backbone: FeatureMaps
    necks: tuple[Mapping[str, Any], ...]
    after_first: FeatureMaps
    heads: FeatureMaps


def expected_maps(cfg: Config, scope: str) -> Expected:
    """Find the maps in a model by building its backbone and its necks without memory.

    Args:
        cfg: Config of a detector or segmentor.
        scope: Package of its models.

    Raises:
        SwapError: They do not give maps.
    """
    necks = necks_of(cfg.model)
    maps = feature_maps(cfg.model.backbone, scope=scope)
    try:
        after_first = maps_after(maps, necks[:1], scope)
        return Expected(maps, necks, after_first, maps_after(after_first, necks[1:], scope))
    except SwapError as error:
        raise SwapError(
            'the neck of the original config does not run on images of another size than its own, so that it is not '
            f'known which maps the heads need ({error})'
        ) from error


def necks_of(model: Mapping) -> tuple[Mapping[str, Any], ...]:
    """Configs of a model's necks; a config may have none, one or a list."""
    necks = model.get('neck') or ()
    return (necks,) if isinstance(necks, Mapping) else tuple(necks)


def check_swappable(cfg: Config, name: str) -> None:
    """Check that a config has one backbone that other parts of its model do not depend on.

    Args:
        cfg: The whole config.
        name: Its name, for errors.

    Raises:
        SwapError: The message says which part is in the way.
    """
    model = cfg.get('model')
    if not isinstance(model, Mapping):
        raise SwapError(f'{name} has no model')
    kind = type_name(model.get('type'))
    teacher = next((key for key in model if 'teacher' in key), None)
    if teacher:
        raise SwapError(
            f'{name}: {kind} learns from a teacher (model.{teacher}), another model with its own backbone. Swap the '
            'backbone of a config without a teacher'
        )
    if not isinstance(model.get('backbone'), Mapping):
        parts = ', '.join(key for key, value in model.items() if isinstance(value, Mapping) and _is_part(key, value))
        raise SwapError(f'{name}: {kind} has no model.backbone to swap; its parts are {parts or "none"}')
    for key, part in nodes_below(model, 'model'):
        part_kind = type_name(part.get('type')) if isinstance(part, Mapping) else ''
        if part_kind in _WIRED:
            raise SwapError(f'{name}: {key} is a {part_kind}: {_WIRED[part_kind]}')


def _is_part(key: str, value: Mapping) -> bool:
    return 'type' in value and key != 'data_preprocessor'
