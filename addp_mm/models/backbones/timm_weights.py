# Copyright (c) addp_mm contributors. Apache-2.0.
"""Weights of timm's models under timm's names, from timm's files or the original projects'."""

from __future__ import annotations

import inspect
import math
from collections.abc import Collection, Mapping
from contextlib import redirect_stdout
from importlib import import_module
from io import StringIO
from typing import Any

import timm
from timm.layers import resample_abs_pos_embed
from timm.models import hiera, volo
from torch import Tensor

from addp_mm.errors import UserError, first_few

Size = tuple[int, int]

# Norms after the last block, which a file of pre-trained weights may lack
_LAST_NORMS = ('norm.', 'fc_norm.', 'norm_pre.')
_PATCHES = 'patch_embed.proj.weight'


def convert_weights(
    weights: Mapping[str, Tensor], own: Mapping[str, Tensor], whole: Any, model_name: str, source_grid: Size | None
) -> dict[str, Tensor]:
    """Convert weights to timm's names and to the sizes of a model, with timm's own functions.

    Weights that the whole model has and the backbone lacks are left out: those of the head, and of
    blocks that no map needs.

    Args:
        weights: Weights of a classifier, a pre-training or a backbone, named as by timm or as by
            the model's own project.
        own: The backbone's weights, by timm's names.
        whole: timm's model with its head and all its blocks, on any device.
        model_name: timm's name of it.
        source_grid: (height, width) of the positions in ``weights``; None if they are square.

    Raises:
        ValueError: They are of another model.
    """
    weights = dict(weights)
    if source_grid is not None:
        _resize_positions(weights, own, whole, source_grid)
    # timm would resize the patches of another model without a word
    patches = weights.get(_PATCHES)
    keeps_patches = patches is not None and _PATCHES in own and patches.shape[2:] != own[_PATCHES].shape[2:]
    if keeps_patches:
        weights[_PATCHES] = own[_PATCHES]
    converted = _filtered(weights, own, whole, model_name)
    if keeps_patches and patches is not None:
        converted[_PATCHES] = patches
    _resize_positions(converted, own, whole, None)
    check_same_model(converted, own, whole, model_name)
    all_names = whole.state_dict()
    return {name: weight for name, weight in converted.items() if name in own or name not in all_names}


def _filtered(weights: dict, own: Mapping, whole: Any, model_name: str) -> dict[str, Tensor]:
    """Apply timm's function for the files of a family, if it has one."""
    module = import_module(timm.models.model_entrypoint(model_name.partition('.')[0]).__module__)
    convert = getattr(module, 'checkpoint_filter_fn', None)
    if convert is None:
        return weights
    options = {}
    if 'adapt_layer_scale' in inspect.signature(convert).parameters:  # DeiT III
        options['adapt_layer_scale'] = any('.gamma_1' in name for name in weights)
    try:
        with redirect_stdout(StringIO()):  # it prints what is not worth a line
            return dict(convert(dict(weights), whole, **options))
    except Exception as error:  # it fails in many ways on names that it does not know
        if set(own) <= set(weights):
            return weights
        raise ValueError(f'it is not a checkpoint of {model_name}: timm cannot convert it ({error!r})') from error


def _resize_positions(weights: dict[str, Tensor], own: Mapping, whole: Any, source_grid: Size | None) -> None:
    """Resize position embeddings where timm's functions cannot: from a given grid, or to a map."""
    positions, wanted = weights.get('pos_embed'), own.get('pos_embed')
    if positions is None or wanted is None or positions.shape[-1] != wanted.shape[-1]:
        return
    if positions.dim() == wanted.dim() == 4 and isinstance(whole, volo.VOLO):
        flat = resample_abs_pos_embed(
            positions.flatten(1, 2), list(wanted.shape[1:3]), list(positions.shape[1:3]), num_prefix_tokens=0
        )
        weights['pos_embed'] = flat.unflatten(1, wanted.shape[1:3])
    elif positions.dim() == wanted.dim() == 3 and (source_grid is not None or isinstance(whole, hiera.Hiera)):
        grid = whole.tokens_spatial_shape if isinstance(whole, hiera.Hiera) else whole.patch_embed.grid_size
        extra = wanted.shape[1] - math.prod(grid)
        side = math.isqrt(positions.shape[1] - extra)
        source = list(source_grid or (side, side))
        if math.prod(source) + extra == positions.shape[1]:
            weights['pos_embed'] = resample_abs_pos_embed(positions, list(grid), source, num_prefix_tokens=extra)


def check_same_model(names: Collection[str], own: Collection[str], whole: Any, model_name: str) -> None:
    """Check that a checkpoint has all layers of a model, and no other layers of that kind.

    Args:
        names: Names of the checkpoint's weights, by timm's names.
        own: Names of the backbone's weights.
        whole: timm's model with its head and all its blocks.
        model_name: timm's name of it.

    Raises:
        ValueError: It has more or fewer.
    """
    if not set(own) & set(names):
        return  # the caller says that nothing matches
    missing = [
        name
        for name in own
        if name not in names and not name.startswith(_LAST_NORMS) and not name.endswith('num_batches_tracked')
    ]
    parts = {info['module'].partition('.')[0] for info in whole.feature_info}
    all_names = whole.state_dict()
    more = [name for name in names if name not in all_names and name not in own and name.partition('.')[0] in parts]
    if missing or more:
        differences = [f'it lacks {first_few(missing, 3)}'] if missing else []
        differences += [f'it has {first_few(more, 3)}, which {model_name} has not'] if more else []
        raise ValueError(
            f'it is not a checkpoint of {model_name}: {"; ".join(differences)}. Give TimmBackbone the model and the '
            'model_kwargs of the checkpoint'
        )


class WeightsError(UserError):
    """timm has no weights for a model, or they cannot be downloaded."""


def pretrained_weights(model_name: str, in_channels: int, model_kwargs: Mapping) -> dict[str, Tensor]:
    """The weights that timm itself loads with ``pretrained=True``, for its own image size.

    Args:
        model_name: timm's name, with or without the tag of the weights.
        in_channels: Channels of the images; timm adapts the first convolution.
        model_kwargs: More arguments of the model.

    Raises:
        WeightsError: There are none, or they cannot be downloaded or do not fit ``model_kwargs``.
    """
    config = timm.get_pretrained_cfg(model_name)
    if config is None or not config.has_weights:
        raise WeightsError(
            f'pretrained=True: timm {timm.__version__} names no weights for {model_name}. Give a file with '
            "init_cfg=dict(type='addp_mm.Pretrained', checkpoint=…)"
        )
    kwargs = {key: value for key, value in model_kwargs.items() if key != 'img_size'}
    try:
        donor = timm.create_model(model_name, pretrained=True, num_classes=0, in_chans=in_channels, **kwargs)
    except Exception as error:  # the class for a broken connection depends on the HTTP library
        reason = next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)
        raise WeightsError(
            f'pretrained=True: the weights of {model_name} ({config.hf_hub_id or config.url}) could not be loaded '
            f'({type(error).__name__}: {reason}). Set HF_HOME to a cache that has them, or give a file with '
            "init_cfg=dict(type='addp_mm.Pretrained', checkpoint=…) instead of pretrained=True"
        ) from error
    return donor.state_dict()
