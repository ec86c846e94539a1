# Copyright (c) addp_mm contributors. Apache-2.0.
"""VGG-16 as a feature extractor."""

from __future__ import annotations

from mmengine.model import BaseModule
from torch import Tensor
from torchvision.models.vgg import cfgs, make_layers

from addp_mm.registry import MODELS

# Number of layers up to the last ReLU of each level, which LPIPS compares: relu1_2, relu2_2,
# relu3_3, relu4_3 and relu5_3.
_ENDS = (4, 9, 16, 23, 30)


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
        self.features = make_layers(cfgs['D'])[: _ENDS[-1]]

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        """Map images (B, 3, H, W) to maps of 64, 128, 256, 512, 512 channels at strides 1 to 16."""
        maps, x = [], images
        for index, layer in enumerate(self.features, 1):
            x = layer(x)
            if index in _ENDS:
                maps.append(x)
        return tuple(maps)
