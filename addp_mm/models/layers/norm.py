# Copyright (c) addp_mm contributors. Apache-2.0.
"""Layer normalisation of feature maps."""

import torch.nn.functional as F
from torch import Tensor, nn

from addp_mm.registry import MODELS


@MODELS.register_module()
class LN2d(nn.LayerNorm):
    """Layer normalisation over the channels at each position of a map, as in ViTDet's neck.

    Use it as ``norm_cfg=dict(type='addp_mm.LN2d', eps=1e-6)`` in OpenMMLab configs. Without ``eps``
    mmcv passes 1e-5, its own default for all norms.

    Args:
        num_channels: Channels of the map.
        eps: Added to the variance. Defaults to 1e-6.
        **kwargs: Other arguments of :class:`torch.nn.LayerNorm`.
    """

    _abbr_ = 'ln'

    def __init__(self, num_channels: int, eps: float = 1e-6, **kwargs) -> None:
        super().__init__(num_channels, eps=eps, **kwargs)

    def forward(self, x: Tensor) -> Tensor:
        """Normalise a map (B, C, H, W); the result has the same shape."""
        x_bhwc = x.permute(0, 2, 3, 1)
        return F.layer_norm(x_bhwc, self.normalized_shape, self.weight, self.bias, self.eps).permute(0, 3, 1, 2)
