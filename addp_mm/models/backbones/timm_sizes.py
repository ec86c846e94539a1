# Copyright (c) addp_mm contributors. Apache-2.0.
"""Images of any size in timm's models.

Most of timm's transformers take images of one size, which is fixed when they are built. Each class
here removes that limit for a family, with the resizing of positions that timm does when it loads
weights into a model of another size.
"""

from __future__ import annotations

from typing import Any

from timm.layers import AvgPool2dSame, Conv2dSame, resample_abs_pos_embed
from timm.layers.pool2d_same import MaxPool2dSame
from timm.models import swin_transformer, swin_transformer_v2, volo
from torch import Tensor, nn
from torch.func import functional_call

from addp_mm.models.layers import ImageSizeError

Size = tuple[int, int]

_SAME_PADDING = (Conv2dSame, AvgPool2dSame, MaxPool2dSame)  # they pad in the forward pass


class _Intermediates(nn.Module):
    """Calls ``forward_intermediates``, so that ``functional_call`` can replace parameters in it."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model

    def forward(self, x: Tensor, **options) -> list:
        return self.model.forward_intermediates(x, **options)


class AnySize:
    """Runs a model that takes images of all sizes that are multiples of ``multiple``.

    Args:
        model: The model; its modules may be changed.
        strides: Strides of all its feature maps.
    """

    def __init__(self, model: Any, strides: list[int]) -> None:
        self.multiple: Size = (1, 1) if _rounds_up(model) else (max(strides), max(strides))

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


class DynamicPatches(AnySize):
    """Plain transformers with timm's ``dynamic_img_size``: multiples of the patch."""

    def __init__(self, model: Any, strides: list[int]) -> None:
        self.multiple = _pair(model.patch_embed.patch_size)


class FixedSize(AnySize):
    """A model that timm builds for one size and that is not among the families above."""

    def __init__(self, model: Any, strides: list[int]) -> None:
        self.size = _built_size(model)
        self.multiple = (1, 1)

    def check(self, model: Any, height: int, width: int) -> None:
        if self.size is not None and (height, width) != self.size:
            raise ImageSizeError(
                f'{type(model).__name__} of timm takes images of {self.size[0]}x{self.size[1]} pixels only, got '
                f'{height}x{width}. Set model_kwargs=dict(img_size=({height}, {width})) and give all images that size'
            )


class Swin(DynamicPatches):
    """Swin V1 and V2: windows of the built size; they are shifted unless the map is one window."""

    def __init__(self, model: Any, strides: list[int]) -> None:
        super().__init__(model, strides)
        for block in model.modules():
            if isinstance(block, (swin_transformer.SwinTransformerBlock, swin_transformer_v2.SwinTransformerV2Block)):
                block.register_forward_pre_hook(_shift_to_map)


def _shift_to_map(block: nn.Module, args: tuple[Tensor]) -> None:
    """Shift the windows of a block only along sides on which the map has more than one window.

    timm decides it when it builds the model.
    """
    if block.always_partition:
        return
    sides = args[0].shape[1:3]
    shifted = any(block.target_shift_size)
    block.shift_size = tuple(
        window // 2 if shifted and side > window else 0 for side, window in zip(sides, block.window_size)
    )


class VOLO(AnySize):
    """VOLO: multiples of two patches. timm floors other sizes and has a fixed map of positions."""

    def __init__(self, model: Any, strides: list[int]) -> None:
        self.stride = model.feature_info[0]['reduction'] * model.pooling_scale
        self.multiple = (self.stride, self.stride)

    def run(self, model: Any, x: Tensor, **options) -> list:
        if model.pos_embed is None:
            return super().run(model, x, **options)
        height, width = x.shape[-2] // self.stride, x.shape[-1] // self.stride
        pos_embed = _resample_map(model.pos_embed, (height, width))
        return functional_call(_Intermediates(model), {'model.pos_embed': pos_embed}, (x,), options)


def any_size(model: Any, strides: list[int]) -> AnySize:
    """Prepare a model for images of any size.

    Args:
        model: A model of timm; its modules may be changed.
        strides: Strides of all its feature maps.
    """
    for family, kind in FAMILIES:
        if isinstance(model, family):
            return kind(model, strides)
    if getattr(model, 'dynamic_img_size', False) and hasattr(model, 'patch_embed'):
        return DynamicPatches(model, strides)
    if (model.pretrained_cfg or {}).get('fixed_input_size'):
        return FixedSize(model, strides)
    return AnySize(model, strides)


FAMILIES: tuple[tuple[type | tuple[type, ...], type[AnySize]], ...] = (
    ((swin_transformer.SwinTransformer, swin_transformer_v2.SwinTransformerV2), Swin),
    (volo.VOLO, VOLO),
)


def _resample_map(pos_embed: Tensor, size: Size) -> Tensor:
    """Resize positions (1, H, W, C)."""
    if tuple(pos_embed.shape[1:3]) == size:
        return pos_embed
    flat = resample_abs_pos_embed(
        pos_embed.flatten(1, 2), list(size), old_size=list(pos_embed.shape[1:3]), num_prefix_tokens=0
    )
    return flat.unflatten(1, size)


def _rounds_up(model: Any) -> bool:
    """Whether every convolution and pooling of a model gives ceil(size / stride) positions."""
    for module in model.modules():
        if isinstance(module, (nn.Conv2d, nn.MaxPool2d, nn.AvgPool2d)) and not isinstance(module, _SAME_PADDING):
            kernel, stride, padding = (_pair(getattr(module, name)) for name in ('kernel_size', 'stride', 'padding'))
            dilation = _pair(getattr(module, 'dilation', 1))
            for side in (0, 1):
                whole = getattr(module, 'ceil_mode', False) and kernel[side] == stride[side]
                symmetric = 2 * padding[side] == dilation[side] * (kernel[side] - 1)
                if stride[side] > 1 and not (whole or symmetric):
                    return False
    return True


def _pair(value: int | str | tuple[int, ...]) -> Size:
    if isinstance(value, str):
        return (-1, -1)
    return (value, value) if isinstance(value, int) else (value[0], value[1])


def _built_size(model: Any) -> Size | None:
    """(height, width) for which a model was built; None if it does not say."""
    for owner in (getattr(model, 'patch_embed', None), model):
        size = getattr(owner, 'img_size', None)
        if size is not None:
            return _pair(size)
    size = (model.pretrained_cfg or {}).get('input_size')
    return (size[1], size[2]) if size else None
