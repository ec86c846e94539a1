# Copyright (c) addp_mm contributors. Apache-2.0.
"""ViTDet's pyramid from a single map."""

from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor, nn

from addp_mm.models.layers import LN2d
from addp_mm.models.layers.component import Component
from addp_mm.registry import MODELS


def _resize_layers(channels: int, scale: float) -> tuple[nn.Sequential, int]:
    """Layers that resize a map by ``scale`` (a power of two), and the channels they leave."""
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
    raise ValueError(f'scales of SimpleFPN are 4, 2, 1 and 0.5, got {scale}')


@MODELS.register_module()
class SimpleFPN(Component):
    """Feature pyramid from a ViT's last map alone (ViTDet, arXiv 2203.16527, section 3).

    A map of stride ``patch_size`` gives maps of stride ``patch_size / scale``. Each is brought to
    ``out_channels`` by a 1 x 1 and a 3 x 3 convolution without bias, both followed by a LayerNorm over channels.

    Args:
        in_channels (int): Channels of the ViT's map; a multiple of 4.
        out_channels (int): Channels of every level. Defaults to 256.
        scales (Sequence[float]): Resizing of each level, from the finest; out of 4, 2, 1, 0.5.
            Defaults to (4, 2, 1, 0.5).
        num_outs (int, optional): Number of levels; those beyond ``scales`` take every second place
            of the level before. Defaults to None: ``len(scales)``.
        init_cfg (dict, optional): How mmengine sets the weights. Defaults to None.

    Raises:
        ValueError: An unknown scale, fewer ``num_outs`` than ``scales``, or not exactly one map
            given.

    Example:
        >>> neck = SimpleFPN(192, 64, num_outs=5)
        >>> [tuple(x.shape[2:]) for x in neck((torch.rand(1, 192, 8, 8), ))]
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
            inputs (Sequence[Tensor]): One map (B, in_channels, h, w).

        Returns:
            tuple[Tensor]: ``num_outs`` maps (B, out_channels, h * scale, w * scale).
        """
        if len(inputs) != 1:
            raise ValueError(f'SimpleFPN takes one map, got {len(inputs)}: give the backbone one of out_indices')
        outs = [level(inputs[0]) for level in self.levels]
        for _ in range(self.num_extra_outs):
            outs.append(F.max_pool2d(outs[-1], 1, stride=2))
        return tuple(outs)
