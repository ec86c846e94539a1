# Copyright (c) addp_mm contributors. Apache-2.0.
"""Whether images are normalised as those on which the weights of a backbone were trained."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mmengine.config import Config

from addp_mm.analysis.batches import dicts_of
from addp_mm.config.type_names import type_name
from addp_mm.errors import ConfigError
from addp_mm.swap.images_plan import preprocessor_of
from addp_mm.swap.zoo import TIMM_SCHEME, ZOO, find_backbone
from addp_mm.swap.zoo_entry import ZooEntry

_TIMM_HUB = 'hf://timm/'
_TOLERANCE = 1.0  # of values from 0 to 255


def check_colours(cfg: Config) -> None:
    """Check the order of colours, the mean and the standard deviation of the images.

    Only weights of the zoo and of timm are known.

    Args:
        cfg: The whole config.

    Raises:
        ConfigError: They are not those of the weights. The message has the settings to change.
    """
    backbone = cfg.model.get('backbone') or {}
    entry = entry_of(backbone)
    where, found = preprocessor_of(cfg)
    if entry is None or not found or backbone.get('in_channels', 3) != 3:  # other channels have no colours
        return
    key = 'bgr_to_rgb' if cfg.get('default_scope') in ('mmdet', 'mmseg') else 'to_rgb'
    mean, std = entry.colours
    wanted = {key: True, 'mean': list(mean), 'std': list(std)}
    differs = [name for name, value in wanted.items() if not _agree(found.get(name), value)]
    if differs:
        raise ConfigError(
            f'the weights of {entry.name} were trained on other colours: set '
            + ' and '.join(f'{where}.{name}={wanted[name]}' for name in differs)
            + f' (now {", ".join(str(found.get(name)) for name in differs)})'
        )


def entry_of(backbone: Mapping[str, Any]) -> ZooEntry | None:
    """Description of the weights that a backbone loads; None if they are not known."""
    weights = _weights(backbone)
    if weights is None:
        return None
    for entry in ZOO.values():
        if _weights(entry.backbone) == weights:
            return entry
    model = _timm_model(backbone, weights)
    return find_backbone(f'{TIMM_SCHEME}{model}') if model else None


def _timm_model(backbone: Mapping[str, Any], weights: str) -> str | None:
    """The name in timm of a TimmBackbone's weights; None of files, whose colours are not known."""
    if type_name(backbone.get('type')) != 'TimmBackbone':
        return None
    if backbone.get('pretrained'):
        return weights
    return weights.removeprefix(_TIMM_HUB).partition('/')[0] if weights.startswith(_TIMM_HUB) else None


def _weights(backbone: Mapping[str, Any]) -> str | None:
    if type_name(backbone.get('type')) == 'TimmBackbone' and backbone.get('pretrained'):
        return backbone['model']
    given = backbone.get('init_cfg')
    return next((node['checkpoint'] for node in dicts_of([given]) if node.get('checkpoint')), None)


def _agree(found: Any, wanted: Any) -> bool:
    if isinstance(wanted, bool):
        return bool(found) == wanted
    if found is None or len(found) != len(wanted):
        return False
    return all(abs(a - b) <= _TOLERANCE for a, b in zip(found, wanted, strict=True))
