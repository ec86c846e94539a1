# Copyright (c) addp_mm contributors. Apache-2.0.
"""Whether a generated scene shows anything."""

from __future__ import annotations

import torch
from torch import Tensor

from addp_mm.evaluation.scene_content import is_empty
from addp_mm.generation.figures import to_uint8
from addp_mm.registry import REWARDS


@REWARDS.register_module()
class SceneReward:
    """1 for a scene of FashionScenes with something on its background, 0 for an all but empty one.

    The mean over images is the share of scenes that are not empty.
    """

    def __call__(self, images: Tensor) -> Tensor:
        """Rewards (B,) of images (B, 3, H, W) in [0, 1]."""
        return torch.from_numpy(~is_empty(to_uint8(images))).float()
