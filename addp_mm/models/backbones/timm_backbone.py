# Copyright (c) addp_mm contributors. Apache-2.0.
"""Any model of timm as a backbone of classifiers, detectors and segmentors."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from addp_mm.models.backbones.options import OUT_TYPES, ascending_indices
from addp_mm.models.backbones.timm_depths import LayerDepths, freeze_stages, stage_modules
from addp_mm.models.backbones.timm_model import (
    build_timm_model,
    default_indices,
    features_of,
    final_norm_of,
    is_plain,
    norm_map,
)
from addp_mm.models.backbones.timm_sizes import any_size
from addp_mm.models.backbones.timm_weights import check_same_model, convert_weights, pretrained_weights
from addp_mm.models.layers import ImageSizeError, OptionError
from addp_mm.models.layers.component import AdoptedWeights, Component
from addp_mm.models.layers.lora import LORA_OR_FROZEN_STAGES, add_lora, freeze_statistics, merge_lora
from addp_mm.models.layers.lora_weights import check_adapters, is_adapter
from addp_mm.registry import MODELS

# Before timm's names in the state dict, as in mmpretrain's TIMMBackbone
_PREFIX = 'timm_model.'


@MODELS.register_module()
class TimmBackbone(Component):
    """A model of timm whose feature maps serve any head, for images of any size.

    Images are padded on the right and at the bottom with zeros where the model needs multiples, and
    the maps are cropped to ceil(size / stride). Positions are resized in the forward pass as timm
    resizes them when it loads weights into a model of another size. Layers that no map needs are
    removed: the head, and the blocks after the last of ``out_indices``.

    Args:
        model: timm's name, such as 'vit_base_patch16_dinov3', also with the tag of its weights:
            'vit_base_patch16_dinov3.lvd1689m'.
        out_indices: Depths whose maps are returned, ascending; negative numbers count from the end.
            They are blocks of a plain transformer and stages of other models, numbered as by timm:
            0 is the stem (stride 2) in ResNets and MaxViT. Defaults to None: the last block of a
            plain transformer, else all stages with a stride of 4 or more.
        out_type: 'featmap': (B, C, h, w). 'avg_featmap': (B, C), the mean over the map. Plain
            transformers also have 'cls_token': (B, C), and 'raw': (B, P + h * w, C), the P class
            and register tokens first. Defaults to 'featmap'.
        in_channels: Channels of the images. Defaults to 3.
        drop_path_rate: Stochastic depth of the last block, in [0, 1). Defaults to None: as in timm.
        final_norm: Whether the model's last norm is applied to the map of its last depth. Defaults
            to True.
        with_cp: Whether to recompute activations in the backward pass to save memory. Defaults to
            False.
        frozen_stages: 0 freezes the stem, n also the first n blocks of a plain transformer or the
            first n stages of another model, their number everything. Frozen components have no
            gradient and stay in eval mode. Defaults to -1: nothing is frozen.
        pretrained: Whether ``init_weights`` loads the weights that timm names. Defaults to False.
        model_kwargs: More arguments of timm's model, such as ``dict(img_size=512)``. Defaults to
            None.
        lora: LoRA adapters, which need the package peft: a dict of ``rank``, ``alpha``,
            ``dropout``, ``layers`` (blocks of a plain transformer, stages of another model),
            ``targets`` and ``trainable``; see :class:`~addp_mm.models.layers.lora.LoRAOptions`.
            Everything else is frozen, also the statistics of batch norms. Defaults to None.
        init_cfg: How mmengine initialises the weights. Defaults to None.

    Attributes:
        out_channels: Channels of each returned map.
        out_strides: Strides of each returned map, in pixels.
        size_divisors: Height and width, in pixels, to whose multiples images are padded.

    Raises:
        OptionError: timm has no such model or weights, or an option is wrong.
        ImageSizeError: An image is smaller than the largest stride.

    Example:
        >>> backbone = TimmBackbone('resnet18')
        >>> backbone.out_channels, backbone.out_strides
        ((64, 128, 256, 512), (4, 8, 16, 32))
    """

    component = 'backbone'

    # a subclass may build another model
    _build_model: Any = staticmethod(build_timm_model)

    def __init__(
        self,
        model: str,
        out_indices: int | Sequence[int] | None = None,
        out_type: str = 'featmap',
        in_channels: int = 3,
        drop_path_rate: float | None = None,
        final_norm: bool = True,
        with_cp: bool = False,
        frozen_stages: int = -1,
        pretrained: bool = False,
        model_kwargs: Mapping | None = None,
        lora: Mapping | None = None,
        init_cfg: dict | None = None,
    ) -> None:
        super().__init__(init_cfg=init_cfg)
        if pretrained and init_cfg is not None:
            raise OptionError('pretrained=True and init_cfg both load weights: give one of them')
        if drop_path_rate is not None and not 0 <= drop_path_rate < 1:
            raise OptionError(f'drop_path_rate must be in [0, 1), got {drop_path_rate}')
        self.model_name = model
        self.out_type = out_type
        self.in_channels = in_channels
        self.drop_path_rate = drop_path_rate
        self.with_cp = with_cp
        self.frozen_stages = frozen_stages
        self.pretrained = pretrained
        self.model_kwargs = dict(model_kwargs or {})
        self.timm_model: Any = self._build_model(model, in_channels, drop_path_rate, self.model_kwargs)
        features = features_of(self.timm_model)
        out_indices = default_indices(self.timm_model) if out_indices is None else out_indices
        kind = 'blocks' if is_plain(self.timm_model) else 'depths'
        self.out_indices = ascending_indices(out_indices, len(features), 'out_indices', f'{kind} in {model}')
        self.out_channels = tuple(features[i].channels for i in self.out_indices)
        self.out_strides = tuple(features[i].stride for i in self.out_indices)
        self._check_out_type()
        self._any_size = any_size(self.timm_model, [feature.stride for feature in features])
        self.size_divisors = self._any_size.multiple
        self._normed_index = len(features) - 1 if final_norm else None
        self.stages = stage_modules([feature.module for feature in features], LayerDepths(self.timm_model))
        self._remove_unused_layers()
        self.timm_model.is_init = True  # timm has initialised it; mmengine would do it again
        if with_cp:
            self._checkpoint_blocks()
        self.depths = LayerDepths(self.timm_model)
        self._frozen_names = freeze_stages(self.timm_model, self.depths, self.stages, frozen_stages, model)
        self.lora = lora
        self.register_load_state_dict_pre_hook(check_adapters)
        if lora is not None:
            self._add_adapters(lora)

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        """Extract features.

        Args:
            x: (B, in_channels, H, W), normalised as in the model's training.

        Returns:
            One tensor for each of ``out_indices``; see ``out_type`` for their shapes.
        """
        height, width = x.shape[-2:]
        self.check_image_size(height, width)
        padding = (0, -width % self.size_divisors[1], 0, -height % self.size_divisors[0])
        outs: list[Tensor] = []
        for i, out, prefix in self._intermediates(F.pad(x, padding) if any(padding) else x):
            out = self._crop(out, height, width, self.out_strides[len(outs)])
            outs.append(self._format(out, prefix, is_normed=i == self._normed_index))
        return tuple(outs)

    def check_image_size(self, height: int, width: int) -> None:
        """Check that images of this size, in pixels, can be processed.

        Raises:
            ImageSizeError: A side is smaller than the largest stride, or the model has another,
                fixed size.
        """
        stride = max(self.out_strides)
        if min(height, width) < stride:
            raise ImageSizeError(
                f'an image of {height}x{width} pixels is smaller than the stride {stride} of {self.model_name}: use '
                f'images of at least {stride}x{stride} pixels, or leave out the last of out_indices'
            )
        self._any_size.check(self.timm_model, height, width)

    def train(self, mode: bool = True) -> TimmBackbone:
        """Set training mode, except for frozen components. Returns the backbone itself."""
        super().train(mode)
        if self.lora is not None:
            freeze_statistics(self)
        return self

    def merge_lora(self) -> None:
        """Add the adapters of ``lora`` to the weights of their layers, and remove them.

        Raises:
            OptionError: There are no adapters, or they were merged before.
        """
        merge_lora(self)

    def get_layer_depth(self, param_name: str, prefix: str = '') -> tuple[int, int]:
        """Depth of a parameter for layer-wise learning rate decay, in timm's own groups.

        Args:
            param_name: Name of the parameter in the whole model.
            prefix: Name of the backbone in the whole model, with a dot at its end. Defaults to ''.

        Returns:
            The depth, and the number of depths. The stem has depth 0; the final norm has that of
            the last block; the modules after the backbone have the last depth.
        """
        start = prefix + _PREFIX
        if not param_name.startswith(start):
            return self.depths.number - 1, self.depths.number
        return self.depths.of(param_name[len(start) :]), self.depths.number

    def adopt_weights(self, weights: Mapping[str, Tensor], pos_grid: tuple[int, int] | None) -> AdoptedWeights:
        """Convert weights of timm's models and of their original projects.

        Args:
            weights: The checkpoint's weights, also with ``timm_model.`` before timm's names.
            pos_grid: (height, width) of their positions in patches; None if they are square.

        Raises:
            ValueError: They are of another model.
        """
        own = {name: weight for name, weight in self.state_dict().items() if not is_adapter(name)}
        has_own_shapes = all(name in weights and weights[name].shape == weight.shape for name, weight in own.items())
        if has_own_shapes and pos_grid is None:
            self.check_weights(weights)
            return AdoptedWeights(dict(weights), [])
        adapters = {name: weight for name, weight in weights.items() if is_adapter(name)}
        given = {name.removeprefix(_PREFIX): weight for name, weight in weights.items() if name not in adapters}
        bare = {name.removeprefix(_PREFIX): weight for name, weight in own.items()}
        converted = convert_weights(given, bare, self._whole_model(), self.model_name, pos_grid)
        resized = [
            f'{_PREFIX}{name} {tuple(given[name].shape)} -> {tuple(weight.shape)}'
            for name, weight in converted.items()
            if name in given and given[name].shape != weight.shape
        ]
        return AdoptedWeights({**{_PREFIX + name: weight for name, weight in converted.items()}, **adapters}, resized)

    def check_weights(self, weights: Mapping[str, Tensor]) -> None:
        """Check that weights have all layers of the model, and no other layers of that kind.

        Args:
            weights: The checkpoint's weights, under the backbone's names.

        Raises:
            ValueError: They have more or fewer.
        """
        own, given = (
            [name.removeprefix(_PREFIX) for name in names if name.startswith(_PREFIX) and not is_adapter(name)]
            for names in (self.state_dict(), weights)
        )
        if set(given) != set(own):
            check_same_model(given, own, self._whole_model(), self.model_name)

    def _whole_model(self) -> Any:
        """The model of timm with its head and all its blocks."""
        with torch.device('meta'):  # only its names and shapes are used
            return build_timm_model(
                self.model_name, self.in_channels, self.drop_path_rate, self.model_kwargs, num_classes=1
            )

    def init_weights(self) -> None:
        """Initialise the weights as ``pretrained`` or ``init_cfg`` says.

        Raises:
            WeightsError: timm has no such weights, or they cannot be downloaded.
        """
        if self.pretrained and not self.is_init:
            adopted = self.adopt_weights(pretrained_weights(self.model_name, self.in_channels, self.model_kwargs), None)
            self.load_state_dict({**self.state_dict(), **adopted.weights})
        super().init_weights()

    def _intermediates(self, x: Tensor) -> Iterator[tuple[int, Tensor, Tensor | None]]:
        """Of each output, not normed: depth, map (B, C, h, w), class and register tokens."""
        options: dict = dict(indices=list(self.out_indices), output_fmt='NCHW', intermediates_only=True)
        if self.num_prefix_tokens and self.out_type in ('cls_token', 'raw'):
            options['return_prefix_tokens'] = True
        outs = self._any_size.run(self.timm_model, x, **options)
        for i, out in zip(self.out_indices, outs, strict=True):
            yield (i, *out) if isinstance(out, tuple) else (i, out, None)

    def _crop(self, out: Tensor, height: int, width: int, stride: int) -> Tensor:
        """The part of a map that belongs to an image before its padding."""
        size = math.ceil(height / stride), math.ceil(width / stride)
        if out.shape[-2] < size[0] or out.shape[-1] < size[1]:
            raise ImageSizeError(
                f'{self.model_name} gives a map of {tuple(out.shape[-2:])} instead of {size} positions for an image of '
                f'{height}x{width} pixels: its convolutions cut off the borders. Use another model'
            )
        return out[..., : size[0], : size[1]]

    def _format(self, out: Tensor, prefix: Tensor | None, is_normed: bool) -> Tensor:
        """The output of ``out_type``, normed."""
        norm = final_norm_of(self.timm_model) if is_normed else nn.Identity()
        if self.out_type == 'cls_token' and prefix is not None:
            return norm(prefix)[:, 0]
        if self.out_type == 'raw':
            tokens = out.flatten(2).transpose(1, 2)
            return norm(tokens if prefix is None else torch.cat([prefix, tokens], dim=1))
        out = norm_map(norm, out)
        if self.out_type == 'avg_featmap':
            return self._pooled_norm(out.mean(dim=(2, 3)))
        return out

    def _check_out_type(self) -> None:
        self.num_prefix_tokens: int = getattr(self.timm_model, 'num_prefix_tokens', 0)
        tokens = is_plain(self.timm_model)
        if self.out_type not in OUT_TYPES:
            raise OptionError(f'out_type must be one of {OUT_TYPES}, got {self.out_type!r}')
        if self.out_type == 'raw' and not tokens:
            raise OptionError(f"out_type='raw' needs a plain transformer; {self.model_name} has maps: use 'featmap'")
        if self.out_type == 'cls_token' and not (tokens and getattr(self.timm_model, 'cls_token', None) is not None):
            raise OptionError(f"out_type='cls_token': {self.model_name} has no class token; use 'avg_featmap'")

    def _remove_unused_layers(self) -> None:
        """Remove the head and the layers after the last map: they would get no gradient."""
        fc_norm = getattr(self.timm_model, 'fc_norm', None)
        is_normed = self.out_indices[-1] == self._normed_index
        self.timm_model.prune_intermediate_layers(list(self.out_indices), prune_norm=not is_normed)
        self.timm_model.is_init = True
        if is_normed and self.out_type == 'avg_featmap' and isinstance(fc_norm, nn.Module):
            self.timm_model.fc_norm = fc_norm

    def _pooled_norm(self, pooled: Tensor) -> Tensor:
        fc_norm = getattr(self.timm_model, 'fc_norm', None)
        return pooled if fc_norm is None else fc_norm(pooled)

    def _checkpoint_blocks(self) -> None:
        try:
            self.timm_model.set_grad_checkpointing(True)
        except (AttributeError, AssertionError) as error:
            raise OptionError(f'with_cp: {self.model_name} of timm cannot recompute activations') from error

    def _add_adapters(self, lora: Mapping) -> None:
        if self.frozen_stages >= 0:
            raise OptionError(LORA_OR_FROZEN_STAGES)
        built = dict(self.timm_model.named_modules())
        ends = [self.depths.of_module(name) or 0 for name in self.stages if name in built]

        def stage_of(name: str) -> int | None:
            depth = self.depths.of_module(name.removeprefix(_PREFIX))
            return next((i for i, end in enumerate(ends) if depth <= end), None) if depth else None

        # Without known stages, the whole model is one.
        add_lora(self, lora, len(ends) or 1, stage_of if ends else lambda _: 0)

    def _frozen_parts(self) -> list[nn.Module]:
        # found by name, because sync_bn replaces modules
        return [self.timm_model.get_submodule(name) for name in self._frozen_names]
