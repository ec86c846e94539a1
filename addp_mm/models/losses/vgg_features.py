# Copyright (c) addp_mm contributors. Apache-2.0.
"""VGG-16 as a feature extractor."""

from __future__ import annotations

from mmengine.model import BaseModule
from torch import Tensor, nn

from addp_mm.registry import MODELS

# Width and number of convolutions of each level. LPIPS compares the last ReLU of each: relu1_2,
# relu2_2, relu3_3, relu4_3 and relu5_3.
_LEVELS = ((64, 2), (128, 2), (256, 3), (512, 3), (512, 3))


@MODELS.register_module()
class VGG16Features(BaseModule):
    """The five feature maps of VGG-16 (arXiv 1409.1556) that LPIPS compares (arXiv 1801.03924).

    The names are torchvision's, so that its checkpoint of ``vgg16`` loads, without the classifier:
    ``init_cfg=dict(type='addp_mm.Pretrained', checkpoint='vgg16-397923af.pth')``, or an ``hf://``
    or ``https://`` address of that file.

    Args:
        init_cfg: How mmengine initialises the weights. Defaults to None.
    """

    def __init__(self, init_cfg: dict | None = None) -> None:
        super().__init__(init_cfg)
        layers: list[nn.Module] = []
        self.ends = []
        channels = 3
        for width, depth in _LEVELS:
            if layers:
                layers.append(nn.MaxPool2d(2))
            for _ in range(depth):
                layers += [nn.Conv2d(channels, width, 3, padding=1), nn.ReLU()]
                channels = width
            self.ends.append(len(layers))
        self.features = nn.Sequential(*layers)

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        """Map images (B, 3, H, W) to maps of 64, 128, 256, 512, 512 channels at strides 1 to 16."""
        maps, x = [], images
        for index, layer in enumerate(self.features, 1):
            x = layer(x)
            if index in self.ends:
                maps.append(x)
        return tuple(maps)
