# Copyright (c) addp_mm contributors. Apache-2.0.
"""Layer normalisation of feature maps."""

from timm.layers import LayerNorm2d

from addp_mm.registry import MODELS


@MODELS.register_module()
class LN2d(LayerNorm2d):
    """Layer normalisation over the channels at each position of a map, as in ViTDet's neck.

    Use it as ``norm_cfg=dict(type='addp_mm.LN2d', eps=1e-6)`` in OpenMMLab configs. Without ``eps``
    mmcv passes 1e-5, its own default for all norms.

    Args:
        num_channels: Channels of the map.
        eps: Added to the variance. Defaults to 1e-6.
        **kwargs: Other arguments of timm's ``LayerNorm2d``.
    """

    _abbr_ = 'ln'
