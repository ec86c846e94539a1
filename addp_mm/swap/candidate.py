# Copyright (c) addp_mm contributors. Apache-2.0.
"""The maps that a backbone of the zoo can return, before it is known which ones a head needs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from addp_mm.swap.feature_maps import FeatureMaps, build_without_memory
from addp_mm.swap.zoo_entry import quarters


@dataclass(frozen=True)
class Candidate:
    """A backbone and its maps.

    Args:
        backbone: Its config, without ``out_indices``.
        maps: All maps that a head may get: four depths of a plain transformer, else all stages
            from stride 4.
        indices: ``out_indices`` of each map.
        depth: Number of blocks or stages that ``frozen_stages`` counts.
    """

    backbone: Mapping[str, Any]
    maps: FeatureMaps
    indices: tuple[int, ...]
    depth: int

    @property
    def is_plain(self) -> bool:
        """Whether all depths have one stride."""
        return self.maps.is_plain


def candidate_of(backbone: Mapping[str, Any]) -> Candidate:
    """Find the maps of a backbone of this package.

    Args:
        backbone: Config of ADDPViT, TimmBackbone or VOLO, without ``out_indices``.
    """
    built = _build(backbone)
    indices, depth = tuple(built.out_indices), _depth(built)
    if len(indices) == 1 and depth > 4:  # a plain transformer returns its last block
        indices = quarters(depth)
        built = _build(dict(backbone, out_indices=indices))
    return Candidate(backbone, FeatureMaps(tuple(built.out_channels), tuple(built.out_strides)), indices, depth)


def _build(backbone: Mapping[str, Any]) -> Any:
    return build_without_memory(dict(backbone, out_type='featmap'))


def _depth(built: Any) -> int:
    return built.num_layers if hasattr(built, 'num_layers') else len(built.stages)
