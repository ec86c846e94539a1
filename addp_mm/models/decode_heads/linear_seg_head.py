# Copyright (c) addp_mm contributors. Apache-2.0.
"""Linear segmentation head: batch norm and one 1x1 convolution."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from mmcv.cnn import build_norm_layer
from mmseg.models.decode_heads.decode_head import BaseDecodeHead
from torch import Tensor

from addp_mm.models.layers import OptionError
from addp_mm.registry import MODELS


@MODELS.register_module()
class LinearSegHead(BaseDecodeHead):
    """Class scores that are linear in the features of a backbone (DINOv2, arXiv 2304.07193).

    The maps are resized to the first of them (bilinear), joined along the channels, normalised by a
    batch norm, and classified by a 1x1 convolution. Give the finest map first, so that no detail is
    lost.

    Args:
        in_channels: Channels of each map. One number stands for one map.
        in_index: Positions of these maps among the outputs of the backbone or neck, counted from
            the end if negative. Defaults to None: the last map for one number, else all in order.
        norm_cfg: Config of the norm. Defaults to ``dict(type='SyncBN')``.
        dropout_ratio: Probability that a channel is dropped before the convolution. Defaults to 0.
        **kwargs: Arguments of mmsegmentation's ``BaseDecodeHead``: ``num_classes``,
            ``loss_decode``, ``align_corners``, ``ignore_index`` and others.

    Raises:
        OptionError: ``in_index`` has another length than ``in_channels``.

    Example:
        >>> head = LinearSegHead([64, 128], num_classes=5, norm_cfg=dict(type='BN'))
        >>> head([torch.rand(2, 64, 8, 8), torch.rand(2, 128, 4, 4)]).shape
        torch.Size([2, 5, 8, 8])
    """

    def __init__(
        self,
        in_channels: int | Sequence[int],
        in_index: int | Sequence[int] | None = None,
        norm_cfg: Mapping[str, Any] | None = None,
        dropout_ratio: float = 0.0,
        **kwargs: Any,
    ) -> None:
        channels = [in_channels] if isinstance(in_channels, int) else list(in_channels)
        if in_index is None:
            index = [-1] if isinstance(in_channels, int) else list(range(len(channels)))
        else:
            index = [in_index] if isinstance(in_index, int) else list(in_index)
        if len(index) != len(channels):
            raise OptionError(
                f'in_channels={in_channels} describes {len(channels)} maps, and in_index={in_index} selects '
                f'{len(index)}: give one number of channels for each selected map'
            )
        super().__init__(
            channels,
            sum(channels),
            in_index=index,
            input_transform='resize_concat',
            norm_cfg=dict(norm_cfg or dict(type='SyncBN')),
            dropout_ratio=dropout_ratio,
            **kwargs,
        )
        self.norm = build_norm_layer(self.norm_cfg, self.channels)[1]

    def forward(self, inputs: Sequence[Tensor]) -> Tensor:
        """Classify each position of the first selected map.

        Args:
            inputs: Maps (B, C_i, H_i, W_i) of the backbone or neck.

        Returns:
            Logits (B, num_classes, H, W), with the height and width of the first selected map.
        """
        return self.cls_seg(self.norm(self._transform_inputs(inputs)))
