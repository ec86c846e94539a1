# Copyright (c) addp_mm contributors. Apache-2.0.
"""Images to patch tokens."""

import torch.nn.functional as F
from torch import Tensor, nn

from addp_mm.models.layers.errors import ImageSizeError


class PatchEmbed(nn.Module):
    """One linear projection for each patch.

    Args:
        patch_size: Side of a patch in pixels.
        in_channels: Channels of the image.
        embed_dims: Width of the tokens.
        pad_to_patch: Whether images whose sides are not multiples of the patch are padded with
            zeros on the right and at the bottom. Defaults to False: such an image is an error.
    """

    def __init__(self, patch_size: int, in_channels: int, embed_dims: int, pad_to_patch: bool = False) -> None:
        super().__init__()
        self.patch_size = patch_size
        self.pad_to_patch = pad_to_patch
        self.projection = nn.Conv2d(in_channels, embed_dims, kernel_size=patch_size, stride=patch_size)

    def check_image_size(self, height: int, width: int) -> None:
        """Check that images of this size, in pixels, can be embedded.

        Raises:
            ImageSizeError: A side is not a multiple of the patch and ``pad_to_patch`` is False.
        """
        if not self.pad_to_patch and (height % self.patch_size or width % self.patch_size):
            raise ImageSizeError(
                f'an image of {height} x {width} (height x width) is not a multiple of the patch, '
                f"{self.patch_size} pixels: resize or crop it, set the data preprocessor's "
                f'pad_size_divisor={self.patch_size}, or build the backbone with pad_to_patch=True'
            )

    def forward(self, x: Tensor) -> tuple[Tensor, tuple[int, int]]:
        """Project the patches.

        Args:
            x: (B, in_channels, H, W).

        Returns:
            Tokens (B, h * w, embed_dims), row-major, and (h, w).

        Raises:
            ImageSizeError: See :meth:`check_image_size`.
        """
        h, w = x.shape[-2:]
        self.check_image_size(h, w)
        rest_h, rest_w = -h % self.patch_size, -w % self.patch_size
        if rest_h or rest_w:
            x = F.pad(x, (0, rest_w, 0, rest_h))
        x = self.projection(x)
        return x.flatten(2).transpose(1, 2), (x.shape[2], x.shape[3])
