# Copyright (c) addp_mm contributors. Apache-2.0.
"""Maps of four scales from four blocks of a ViT."""

from collections.abc import Sequence

from mmcv.cnn import build_norm_layer
from torch import Tensor, nn

from addp_mm.models.layers.component import Component
from addp_mm.registry import MODELS


@MODELS.register_module()
class FourScaleNeck(Component):
    """Resize four maps of one stride by 4, 2, 1 and 1/2, as BEiT does before UperNet.

    Source: BEiT (arXiv 2106.08254); MAE does the same. The map of the shallowest block becomes the
    finest. Layers from the finest to the coarsest: two transposed convolutions with a norm and GELU
    between them; one transposed convolution; none; 2 x 2 max pooling.

    Args:
        embed_dims: Channels of all maps.
        norm_cfg: Config of the norm, as mmcv builds it. Defaults to None: ``dict(type='BN')``.
        init_cfg: How mmengine initialises the weights. Defaults to None.

    Example:
        >>> neck = FourScaleNeck(192)
        >>> [tuple(x.shape[2:]) for x in neck([torch.rand(2, 192, 8, 8)] * 4)]
        [(32, 32), (16, 16), (8, 8), (4, 4)]
    """

    def __init__(self, embed_dims: int, norm_cfg: dict | None = None, init_cfg: dict | None = None) -> None:
        super().__init__(init_cfg=init_cfg)
        _, norm = build_norm_layer(norm_cfg or dict(type='BN'), embed_dims)
        self.up4 = nn.Sequential(
            nn.ConvTranspose2d(embed_dims, embed_dims, 2, stride=2),
            norm,
            nn.GELU(),
            nn.ConvTranspose2d(embed_dims, embed_dims, 2, stride=2),
        )
        self.up2 = nn.ConvTranspose2d(embed_dims, embed_dims, 2, stride=2)
        self.down2 = nn.MaxPool2d(2, stride=2)

    def forward(self, inputs: Sequence[Tensor]) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Resize the maps.

        Args:
            inputs: Four maps (B, embed_dims, h, w), that of the shallowest block first.

        Returns:
            Maps of 4h x 4w, 2h x 2w, h x w and h//2 x w//2.

        Raises:
            ValueError: The number of maps is not four.
        """
        if len(inputs) != 4:
            raise ValueError(f'FourScaleNeck takes four maps, got {len(inputs)}: set four out_indices of the backbone')
        return self.up4(inputs[0]), self.up2(inputs[1]), inputs[2], self.down2(inputs[3])
