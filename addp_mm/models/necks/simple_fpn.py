# Copyright (c) addp_mm contributors. Apache-2.0.
"""ViTDet's pyramid from a single map."""

from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor, nn

from addp_mm.models.layers import LN2d
from addp_mm.models.layers.component import Component
from addp_mm.registry import MODELS


def _resize_layers(channels: int, scale: float) -> tuple[nn.Sequential, int]:
    """Layers that resize a map by ``scale``, and the channels of their output."""
    if scale == 4:
        return nn.Sequential(
            nn.ConvTranspose2d(channels, channels // 2, 2, stride=2),
            LN2d(channels // 2),
            nn.GELU(),
            nn.ConvTranspose2d(channels // 2, channels // 4, 2, stride=2),
        ), channels // 4
    if scale == 2:
        return nn.Sequential(nn.ConvTranspose2d(channels, channels // 2, 2, stride=2)), channels // 2
    if scale == 1:
        return nn.Sequential(), channels
    if scale == 0.5:
        return nn.Sequential(nn.MaxPool2d(2, stride=2)), channels
    raise ValueError(f'scales of SimpleFPN must be among 4, 2, 1 and 0.5, got {scale}')


@MODELS.register_module()
class SimpleFPN(Component):
    """Feature pyramid from a ViT's last map (ViTDet, arXiv 2203.16527, section 3).

    A map of stride ``patch_size`` gives maps of stride ``patch_size / scale``. A 1 x 1 and a 3 x 3
    convolution without bias, each with a LayerNorm over channels, bring them to ``out_channels``.

    Args:
        in_channels: Channels of the ViT's map; a multiple of 4.
        out_channels: Channels of every level. Defaults to 256.
        scales: Scale of each level, from the finest; each 4, 2, 1 or 0.5. Defaults to (4, 2, 1,
            0.5).
        num_outs: Number of levels. Those beyond ``scales`` take every second position of the level
            before. Defaults to None: ``len(scales)``.
        init_cfg: How mmengine initialises the weights. Defaults to None.

    Raises:
        ValueError: A scale is unknown, ``num_outs`` is less than the number of scales, or
            ``in_channels`` is not a multiple of 4.

    Example:
        >>> neck = SimpleFPN(192, 64, num_outs=5)
        >>> [tuple(x.shape[2:]) for x in neck([torch.rand(1, 192, 8, 8)])]
        [(32, 32), (16, 16), (8, 8), (4, 4), (2, 2)]
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int = 256,
        scales: Sequence[float] = (4, 2, 1, 0.5),
        num_outs: int | None = None,
        init_cfg: dict | None = None,
    ) -> None:
        super().__init__(init_cfg=init_cfg)
        num_outs = len(scales) if num_outs is None else num_outs
        if num_outs < len(scales):
            raise ValueError(f'num_outs {num_outs} is less than the {len(scales)} scales')
        if in_channels % 4:
            raise ValueError(f'in_channels must be a multiple of 4, got {in_channels}')
        self.num_extra_outs = num_outs - len(scales)
        self.levels = nn.ModuleList()
        for scale in scales:
            resize, channels = _resize_layers(in_channels, scale)
            self.levels.append(
                nn.Sequential(
                    *resize,
                    nn.Conv2d(channels, out_channels, 1, bias=False),
                    LN2d(out_channels),
                    nn.Conv2d(out_channels, out_channels, 3, padding=1, bias=False),
                    LN2d(out_channels),
                )
            )

    def forward(self, inputs: Sequence[Tensor]) -> tuple[Tensor, ...]:
        """Make the pyramid.

        Args:
            inputs: One map (B, in_channels, h, w).

        Returns:
            ``num_outs`` maps (B, out_channels, h * scale, w * scale).

        Raises:
            ValueError: There is not exactly one map.
        """
        if len(inputs) != 1:
            raise ValueError(f'SimpleFPN takes one map, got {len(inputs)}: set one of out_indices of the backbone')
        outs = [level(inputs[0]) for level in self.levels]
        for _ in range(self.num_extra_outs):
            outs.append(F.max_pool2d(outs[-1], 1, stride=2))
        return tuple(outs)
