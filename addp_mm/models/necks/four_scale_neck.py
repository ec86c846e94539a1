# Copyright (c) addp_mm contributors. Apache-2.0.
"""Maps of four scales from four maps of a transformer."""

from collections.abc import Sequence

from mmcv.cnn import build_norm_layer
from torch import Tensor, nn

from addp_mm.models.layers import ImageSizeError, OptionError
from addp_mm.models.layers.component import Component
from addp_mm.registry import MODELS

#: Strides of the outputs, relative to the stride of the third map.
_SCALES = (4, 2, 1, 0.5)
_IN_WORDS = {3: 'three', 4: 'four'}


def _resize_layers(channels: int, scale: float, norm_cfg: dict) -> nn.Module:
    """Layers that resize a map by ``scale``, one of :data:`_SCALES`."""
    if scale == 4:
        return nn.Sequential(
            nn.ConvTranspose2d(channels, channels, 2, stride=2),
            build_norm_layer(norm_cfg, channels)[1],
            nn.GELU(),
            nn.ConvTranspose2d(channels, channels, 2, stride=2),
        )
    if scale == 2:
        return nn.ConvTranspose2d(channels, channels, 2, stride=2)
    return nn.Identity() if scale == 1 else nn.MaxPool2d(2, stride=2)


@MODELS.register_module()
class FourScaleNeck(Component):
    """Resize four maps to a pyramid, each twice as coarse as the one before.

    The third map keeps its stride s; the outputs have the strides s/4, s/2, s and 2s. For a plain
    ViT (16, 16, 16, 16) this is the neck of BEiT (arXiv 2106.08254) and MAE before UperNet; VOLO's
    maps (8, 16, 16, 16) become 4, 8, 16 and 32 too. Each map is enlarged 4 times by two transposed
    convolutions with a norm and GELU between them, 2 times by one transposed convolution, kept, or
    halved by 2 x 2 max pooling. Channels stay. Three maps give the first three levels.

    Args:
        embed_dims: Channels of all maps, or a list with those of each map.
        strides: Stride of each map in pixels, of four or of three maps. Each must be 4, 2, 1 or 1/2
            times the stride of its output. Defaults to (16, 16, 16, 16), which also serves any
            other stride if all four are equal.
        start_level: Number of the finest levels that are neither made nor returned, for heads that
            start at a coarser stride. Defaults to 0.
        norm_cfg: Config of the norm, as mmcv builds it; only maps that are enlarged 4 times have
            one. Defaults to None: ``dict(type='BN')``.
        init_cfg: How mmengine initialises the weights. Defaults to None.

    Raises:
        OptionError: There are not four channels and strides, or three of each, the strides do not
            make a pyramid, or ``start_level`` leaves no level.

    Examples:
        >>> neck = FourScaleNeck(192)
        >>> [tuple(x.shape[2:]) for x in neck([torch.rand(2, 192, 8, 8)] * 4)]
        [(32, 32), (16, 16), (8, 8), (4, 4)]
        >>> neck = FourScaleNeck([192, 384, 384, 384], strides=(8, 16, 16, 16))  # VOLO d1
    """

    def __init__(
        self,
        embed_dims: int | Sequence[int],
        strides: Sequence[float] = (16, 16, 16, 16),
        start_level: int = 0,
        norm_cfg: dict | None = None,
        init_cfg: dict | None = None,
    ) -> None:
        super().__init__(init_cfg=init_cfg)
        self.strides = tuple(strides)
        count = len(self.strides)
        self.embed_dims = (embed_dims,) * count if isinstance(embed_dims, int) else tuple(embed_dims)
        if count not in (3, 4):
            raise OptionError(
                f'strides of FourScaleNeck must have four numbers, one for each map, or three; got {self.strides}'
            )
        if len(self.embed_dims) != count:
            raise OptionError(
                f'embed_dims of FourScaleNeck must have {_IN_WORDS[count]} numbers, one for each map; got '
                f'{self.embed_dims}'
            )
        if start_level not in range(count):
            raise OptionError(f'start_level of FourScaleNeck must be from 0 to {count - 1}, got {start_level}')
        self.start_level = start_level
        self.levels = nn.ModuleList(
            _resize_layers(channels, scale, norm_cfg or dict(type='BN'))
            for channels, scale in list(zip(self.embed_dims, self._scales(), strict=True))[start_level:]
        )

    def _scales(self) -> list[float]:
        """Factor by which each map is resized."""
        outputs = [self.strides[2] / scale for scale in _SCALES[: len(self.strides)]]
        scales = [stride / output for stride, output in zip(self.strides, outputs, strict=True)]
        if any(scale not in _SCALES for scale in scales):
            raise OptionError(
                f'FourScaleNeck cannot make a pyramid of maps with the strides {self.strides}: each must be 4, 2, 1 or '
                f'1/2 times the stride of its output, and the outputs have {", ".join(f"{one:g}" for one in outputs)}. '
                'Set other out_indices of the backbone; a backbone with a pyramid needs no FourScaleNeck'
            )
        return scales

    def forward(self, inputs: Sequence[Tensor]) -> tuple[Tensor, ...]:
        """Resize the maps.

        Args:
            inputs: A map (B, channels, H / stride, W / stride) for each of ``strides``, that of the
                shallowest block first.

        Returns:
            As many maps, less ``start_level``; their height and width are multiplied by the stride
            of the map and divided by that of the output. Max pooling drops the last row and column
            of odd maps.

        Raises:
            ImageSizeError: The number of maps is another, or they do not have ``strides``.
        """
        if len(inputs) != len(self.strides):
            count = _IN_WORDS[len(self.strides)]
            raise ImageSizeError(
                f'FourScaleNeck takes {count} maps, got {len(inputs)}: set {count} out_indices of the backbone'
            )
        self._check_strides(inputs)
        return tuple(level(x) for level, x in zip(self.levels, inputs[self.start_level :], strict=True))

    def _check_strides(self, inputs: Sequence[Tensor]) -> None:
        """Check that the sizes of the maps are those of one image with ``strides``."""
        for x, stride in zip(inputs, self.strides, strict=True):
            for side, reference in zip(x.shape[2:], inputs[2].shape[2:], strict=True):
                # backbones round the size of a map up or down
                if abs(side * stride - reference * self.strides[2]) >= stride + self.strides[2]:
                    raise ImageSizeError(
                        f'FourScaleNeck has strides={self.strides}, but gets maps of '
                        f'{", ".join("x".join(map(str, one.shape[2:])) for one in inputs)}: set strides to those of '
                        'the backbone, e.g. (8, 16, 16, 16) for VOLO'
                    )
