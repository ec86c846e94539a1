# Copyright (c) addp_mm contributors. Apache-2.0.
"""Images of any size in timm's models.

Most of timm's transformers take images of one size, which is fixed when they are built. Each class
here removes that limit for a family. Positions are resized as timm resizes them when it loads
weights into a model of another size.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

from timm.layers import AvgPool2dSame, Conv2dSame, SpaceToDepth, resample_abs_pos_embed
from timm.layers.pool2d_same import MaxPool2dSame
from timm.models import beit, hiera, maxxvit, mvitv2, naflexvit, swin_transformer, swin_transformer_v2, volo
from torch import Tensor, nn

from addp_mm.models.backbones.timm_attention import SharedBias, adapt_beit_attention, adapt_mvit_attention
from addp_mm.models.layers import ImageSizeError

Size = tuple[int, int]

_SAME_PADDING = (Conv2dSame, AvgPool2dSame, MaxPool2dSame)  # they pad in the forward pass


class AnySize:
    """Runs a model on images whose sides are multiples of ``multiple``.

    Attributes:
        multiple: Height and width, in pixels, to whose multiples images are padded.

    Args:
        model: A model of timm; its modules may be changed.
        strides: Strides of all its feature maps.
    """

    def __init__(self, model: Any, strides: list[int]) -> None:
        is_uniform = len(set(strides)) == 1
        self.multiple: Size = (max(strides),) * 2 if is_uniform or not _rounds_up(model) else (1, 1)

    def check(self, model: Any, height: int, width: int) -> None:
        """Check that the model processes images of this size in pixels.

        Raises:
            ImageSizeError: It does not.
        """

    def run(self, model: Any, x: Tensor, **options) -> list:
        """Call the model's ``forward_intermediates``.

        Args:
            model: The model.
            x: (B, C, H, W) with sides that are multiples of ``multiple``.
            **options: Its other arguments.
        """
        return model.forward_intermediates(x, **options)


class FixedSize(AnySize):
    """A model that timm builds for one size, of no family below. Only that size is accepted."""

    def __init__(self, model: Any, strides: list[int]) -> None:
        super().__init__(model, strides)
        self.multiple = (1, 1)
        self.size = _built_size(model)

    def check(self, model: Any, height: int, width: int) -> None:
        """Check that an image has the size for which the model was built.

        Raises:
            ImageSizeError: It has another one.
        """
        if (height, width) != self.size:
            raise ImageSizeError(
                f'{type(model).__name__} of timm is made for {self.size[0]}x{self.size[1]} pixels and cannot resize '
                f'its positions, got {height}x{width}: give all images one size, and set '
                'model_kwargs=dict(img_size=(HEIGHT, WIDTH)) to it, or use another model'
            )


class DynamicPatches(AnySize):
    """Plain transformers with timm's ``dynamic_img_size``: multiples of the patch."""

    def __init__(self, model: Any, strides: list[int]) -> None:
        super().__init__(model, strides)
        patch_embed = model.embeds if isinstance(model, naflexvit.NaFlexVit) else model.patch_embed
        self.multiple = _pair(patch_embed.patch_size)
        if len(set(strides)) == 1:  # a hybrid's patch is one position of a convolutional network
            self.multiple = max(self.multiple[0], strides[0]), max(self.multiple[1], strides[0])


class Swin(DynamicPatches):
    """Swin V1 and V2: windows of the built size; they are shifted unless the map is one window."""

    def __init__(self, model: Any, strides: list[int]) -> None:
        super().__init__(model, strides)
        for block in model.modules():
            if isinstance(block, (swin_transformer.SwinTransformerBlock, swin_transformer_v2.SwinTransformerV2Block)):
                block.register_forward_pre_hook(_shift_to_map)


def _shift_to_map(block: Any, args: tuple[Tensor]) -> None:
    """Shift windows only along sides on which the map has more than one.

    timm does the same, for the size of the build.
    """
    if not block.always_partition:
        is_shifted = any(block.target_shift_size)
        (height, width), (window_h, window_w) = args[0].shape[1:3], block.window_size
        block.shift_size = (
            window_h // 2 if is_shifted and height > window_h else 0,
            window_w // 2 if is_shifted and width > window_w else 0,
        )


class VOLO(AnySize):
    """VOLO: multiples of the stride after the outlookers. timm floors other sizes in silence."""

    def __init__(self, model: Any, strides: list[int]) -> None:
        super().__init__(model, strides)
        self.multiple = (max(strides), max(strides))

    def run(self, model: Any, x: Tensor, **options) -> list:
        """Call ``forward_intermediates`` with positions of the image's size."""
        if model.pos_embed is None:
            return super().run(model, x, **options)
        size = int(x.shape[-2]) // self.multiple[0], int(x.shape[-1]) // self.multiple[1]
        with _positions(model, self.resize(model.pos_embed, size)):
            return super().run(model, x, **options)

    def resize(self, pos_embed: Tensor, size: Size) -> Tensor:
        """Resize positions (1, H, W, C)."""
        return _resample(pos_embed.flatten(1, 2), pos_embed.shape[1:3], size).unflatten(1, size)


class BEiT(DynamicPatches):
    """BEiT and BEiT v2: every block gets the size of the map, to which it resizes its biases."""

    def __init__(self, model: Any, strides: list[int]) -> None:
        super().__init__(model, strides)
        model.patch_embed.strict_img_size = False
        model.rel_pos_bias = SharedBias(model.rel_pos_bias)
        for module in model.modules():
            adapt_beit_attention(module)

    def run(self, model: Any, x: Tensor, **options) -> list:
        """Call ``forward_intermediates`` with positions of the image's size."""
        size = int(x.shape[-2]) // self.multiple[0], int(x.shape[-1]) // self.multiple[1]
        model.rel_pos_bias.size = size
        if model.pos_embed is None:
            return super().run(model, x, **options)
        pos_embed = _resample(model.pos_embed, model.patch_embed.grid_size, size, num_prefix_tokens=1)
        with _positions(model, pos_embed):
            return super().run(model, x, **options)


class MViTv2(AnySize):
    """MViTv2: multiples of the largest stride; attention resizes its relative positions."""

    def __init__(self, model: Any, strides: list[int]) -> None:
        super().__init__(model, strides)
        self.multiple = (max(strides), max(strides))
        for module in model.modules():
            adapt_mvit_attention(module)


class Hiera(AnySize):
    """Hiera: multiples of its mask units."""

    def __init__(self, model: Any, strides: list[int]) -> None:
        super().__init__(model, strides)
        self.multiple = _product(model.patch_stride, model.mask_unit_size)
        self.grid = tuple(model.tokens_spatial_shape)

    def run(self, model: Any, x: Tensor, **options) -> list:
        """Call ``forward_intermediates`` with positions and units of the image's size."""
        image = int(x.shape[-2]), int(x.shape[-1])
        size = image[0] // model.patch_stride[0], image[1] // model.patch_stride[1]
        # They only depend on the image of this forward pass, and no block reads them.
        model.mask_spatial_shape = [side // unit for side, unit in zip(size, model.mask_unit_size, strict=True)]
        unrolled = [model.q_stride] * (len(model.feature_info) - 1)
        model.unroll.size = list(size)
        resized = hiera.Reroll(image, model.patch_stride, unrolled, model.stage_ends, model.q_pool)
        model.reroll.schedule = resized.schedule
        if model.pos_embed is None or model.pos_embed_win is not None:  # timm resizes the latter itself
            return super().run(model, x, **options)
        with _positions(model, _resample(model.pos_embed, self.grid, size)):
            return super().run(model, x, **options)


class MaxViT(AnySize):
    """MaxViT: multiples of its windows at every stride; CoAtNet's blocks have a fixed size."""

    def __init__(self, model: Any, strides: list[int]) -> None:
        super().__init__(model, strides)
        self.multiple = (max(strides), max(strides))
        for info in model.feature_info:
            stage = model.get_submodule(info['module'])
            for window in _partitions(stage):
                sides = _product(window, (info['reduction'],) * 2)
                self.multiple = math.lcm(self.multiple[0], sides[0]), math.lcm(self.multiple[1], sides[1])


FAMILIES: tuple[tuple[type | tuple[type, ...], type[AnySize]], ...] = (
    ((swin_transformer.SwinTransformer, swin_transformer_v2.SwinTransformerV2), Swin),
    (volo.VOLO, VOLO),
    (beit.Beit, BEiT),
    (mvitv2.MultiScaleVit, MViTv2),
    (hiera.Hiera, Hiera),
    (maxxvit.MaxxVit, MaxViT),
    (naflexvit.NaFlexVit, DynamicPatches),
)


def any_size(model: Any, strides: list[int]) -> AnySize:
    """Prepare a model for images of any size.

    Args:
        model: A model of timm; its modules may be changed.
        strides: Strides of all its feature maps.
    """
    if _has_map_sized_attention(model):
        return FixedSize(model, strides)
    for family, kind in FAMILIES:
        if isinstance(model, family):
            return kind(model, strides)
    if getattr(model, 'dynamic_img_size', False):
        return DynamicPatches(model, strides)
    return (FixedSize if model.pretrained_cfg.get('fixed_input_size') else AnySize)(model, strides)


@contextmanager
def _positions(model: Any, pos_embed: Tensor) -> Iterator[None]:
    """Let a model use other position embeddings. They must not be those that a block reads.

    torch.func.functional_call does the same, but cannot be traced, as for counting operations.
    """
    parameters = model._parameters  # noqa: SLF001
    built = parameters['pos_embed']
    parameters['pos_embed'] = pos_embed
    try:
        yield
    finally:
        parameters['pos_embed'] = built


def _resample(pos_embed: Tensor, built: Iterable[int], size: Size, num_prefix_tokens: int = 0) -> Tensor:
    """Resize positions (1, P + H * W, C) from one size in tokens to another."""
    return resample_abs_pos_embed(pos_embed, list(size), list(built), num_prefix_tokens=num_prefix_tokens)


def _partitions(stage: nn.Module) -> list[Size]:
    """Windows of the blocks of a stage of MaxViT, in tokens."""
    return [_pair(block.partition_size) for block in stage.modules() if hasattr(block, 'partition_size')]


def _has_map_sized_attention(model: Any) -> bool:
    """Whether a block has relative positions of the whole map in timm's MaxViT code (CoAtNet)."""
    blocks = (block for block in model.modules() if isinstance(block, maxxvit.TransformerBlock2d))
    return any(block.attn.rel_pos is not None for block in blocks)


def _rounds_up(model: Any) -> bool:
    """Whether every convolution and pooling of a model gives ceil(size / stride) positions."""
    for module in model.modules():
        if isinstance(module, SpaceToDepth):
            return False
        if isinstance(module, (nn.Conv2d, nn.MaxPool2d, nn.AvgPool2d)) and not isinstance(module, _SAME_PADDING):
            kernel, stride, padding = (_pair(getattr(module, name)) for name in ('kernel_size', 'stride', 'padding'))
            dilation = _pair(getattr(module, 'dilation', 1))
            for side in (0, 1):
                whole = getattr(module, 'ceil_mode', False) and kernel[side] == stride[side]
                symmetric = 2 * padding[side] == dilation[side] * (kernel[side] - 1)
                if stride[side] > 1 and not (whole or symmetric):
                    return False
    return True


def _built_size(model: Any) -> Size:
    """(height, width) for which a model was built."""
    for owner in (getattr(model, 'patch_embed', None), model):
        size = getattr(owner, 'img_size', None)
        if size is not None:
            return _pair(size)
    return _pair(model.pretrained_cfg['input_size'][1:])


def _pair(value: Any) -> Size:
    return (value, value) if isinstance(value, int) else (int(value[0]), int(value[1]))


def _product(first: Iterable[int], second: Iterable[int]) -> Size:
    return _pair([a * b for a, b in zip(first, second, strict=True)])
