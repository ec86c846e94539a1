# Copyright (c) addp_mm contributors. Apache-2.0.
"""Build timm's models and read what they say about their features."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import timm
from timm.layers import LayerNorm2d, RmsNorm2d, SimpleNorm2d
from torch import Tensor, nn

from addp_mm.errors import first_few, suggest
from addp_mm.models.layers import OptionError

_RESERVED = ('in_chans', 'num_classes', 'drop_path_rate', 'pretrained', 'features_only', 'out_indices')
_NORMS_OF_MAPS = (
    LayerNorm2d,
    RmsNorm2d,
    SimpleNorm2d,
    nn.GroupNorm,
    nn.modules.batchnorm._BatchNorm,  # noqa: SLF001  # the base of all batch norms
)


@dataclass(frozen=True)
class Feature:
    """One depth at which a model gives a feature map.

    Attributes:
        module: Name of the module whose output it is.
        channels: Number of channels.
        stride: Pixels of the image for each position of the map.
    """

    module: str
    channels: int
    stride: int


def build_timm_model(
    name: str, in_channels: int, drop_path_rate: float | None, model_kwargs: Mapping, num_classes: int = 0
) -> Any:
    """Build a model of timm without weights.

    Args:
        name: timm's name, with or without the tag of its weights.
        in_channels: Channels of the images.
        drop_path_rate: Stochastic depth; None for the model's default.
        model_kwargs: More arguments of the model.
        num_classes: Classes of its classifier. Defaults to 0: it has none.

    Raises:
        OptionError: There is no such model, it gives no feature maps, or an argument is wrong.
    """
    check_name(name)
    reserved = [key for key in _RESERVED if key in model_kwargs]
    if reserved:
        raise OptionError(
            f'model_kwargs of TimmBackbone must not have {", ".join(reserved)}: use in_channels, drop_path_rate, '
            'pretrained and out_indices of TimmBackbone'
        )
    if in_channels < 1:
        raise OptionError(f'in_channels must be positive, got {in_channels}')
    kwargs = dict(in_chans=in_channels, num_classes=num_classes, **model_kwargs)
    if drop_path_rate is not None:
        kwargs['drop_path_rate'] = drop_path_rate
    try:
        model = _create(name, kwargs)
    except (TypeError, AssertionError, ValueError, RuntimeError, AttributeError) as error:
        reason = str(error) or type(error).__name__
        raise OptionError(
            f'timm cannot build {name} with {_listed(kwargs)}: {reason}. Correct model_kwargs of TimmBackbone'
        ) from error
    if not hasattr(model, 'forward_intermediates') or not getattr(model, 'feature_info', None):
        raise OptionError(
            f'{name} of timm gives no intermediate features (it has no forward_intermediates): use another model'
        )
    return model


def check_name(name: str) -> None:
    """Check that timm has a model of this name.

    Raises:
        OptionError: It has none. The message has similar names.
    """
    if not isinstance(name, str) or not name:
        raise OptionError(f'model must be the name of a model of timm, got {name!r}')
    base, _, tag = name.partition('.')
    if not timm.is_model(base):
        raise OptionError(f'timm {timm.__version__} has no model {base!r}{suggest(base, timm.list_models())}')
    tags = [full.partition('.')[2] for full in timm.list_pretrained(f'{base}.*')] if tag else []
    if tag and tag not in tags:
        raise OptionError(
            f'timm {timm.__version__} has no weights {tag!r} of {base}; it has {first_few(tags, count=20)}'
        )


def features_of(model: Any) -> list[Feature]:
    """The feature maps that a model can give, in the order of their depth."""
    modules = dict(model.named_modules())
    features = []
    for i, entry in enumerate(model.feature_info):
        name = entry['module']
        if name not in modules and f'stages.{i}' in modules:  # MViTv2 names modules that it does not have
            name = f'stages.{i}'
        features.append(Feature(name, int(entry['num_chs']), _stride(entry['reduction'])))
    return features


def is_plain(model: Any) -> bool:
    """Whether a model is a plain transformer: one stride and one width at all depths."""
    features = features_of(model)
    return len({(feature.channels, feature.stride) for feature in features}) == 1


def default_indices(model: Any) -> tuple[int, ...]:
    """The last block of a plain transformer; else all depths with a stride of at least 4."""
    features = features_of(model)
    if is_plain(model):
        return (len(features) - 1,)
    return tuple(i for i, feature in enumerate(features) if feature.stride >= 4)


def final_norm_of(model: Any) -> nn.Module:
    """The norm after the last block of a model; an identity if it has none."""
    for name in ('norm', 'norm_pre'):
        norm = getattr(model, name, None)
        if isinstance(norm, nn.Module):
            return norm
    return nn.Identity()


def norm_map(norm: nn.Module, out: Tensor) -> Tensor:
    """Apply a norm of maps or of tokens to a map (B, C, h, w)."""
    if isinstance(norm, (nn.Identity, *_NORMS_OF_MAPS)):
        return norm(out)
    return norm(out.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


def _create(name: str, kwargs: dict) -> Any:
    """Build the model so that it takes images of any size, where timm has options for it."""
    dynamic, not_strict = dict(dynamic_img_size=True), dict(strict_img_size=False)
    # Swin of older versions of timm has only the second one, and ignores the first one.
    for options in ({**dynamic, **not_strict}, dynamic, not_strict):
        try:
            return timm.create_model(name, pretrained=False, **{**options, **kwargs})
        except TypeError as error:
            if not any(option in str(error) and option not in kwargs for option in options):
                raise
    return timm.create_model(name, pretrained=False, **kwargs)


def _listed(kwargs: Mapping) -> str:
    return ', '.join(f'{key}={value!r}' for key, value in kwargs.items())


def _stride(reduction: int | Sequence[int]) -> int:
    """One number for a stride, which some models give as (height, width)."""
    return int(max(reduction)) if isinstance(reduction, Sequence) else int(reduction)
