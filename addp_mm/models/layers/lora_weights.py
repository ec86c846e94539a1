# Copyright (c) addp_mm contributors. Apache-2.0.
"""LoRA adapters in the weights of a checkpoint: compared with a backbone, and merged."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

from torch import Tensor, nn

from addp_mm.errors import first_few
from addp_mm.models.layers.errors import OptionError
from addp_mm.models.layers.lora import inject_adapters, merge_lora

_ADAPTER = re.compile(r'(^|\.)(lora_[AB]\.\w+\.(weight|bias)|lora_alpha)$')
_FIRST_MATRIX = '.lora_A.default.weight'


def is_adapter(name: str) -> bool:
    """Whether a weight of a state dict belongs to a LoRA adapter."""
    return _ADAPTER.search(name) is not None


def check_adapters(backbone: nn.Module, state_dict: Mapping[str, Tensor], prefix: str = '', *_: Any) -> None:
    """Check before loading that a backbone has the adapters of a checkpoint, with the same options.

    Otherwise, loading would leave the adapters out, and the module would compute something else.

    Args:
        backbone: Module that is going to load the weights.
        state_dict: Weights of the whole model.
        prefix: Name of the backbone in it, with a dot at its end. Defaults to ''.

    Raises:
        OptionError: It lacks some of them, or has another rank or alpha.
    """
    saved = {name[len(prefix) :]: w for name, w in state_dict.items() if name.startswith(prefix) and is_adapter(name)}
    if not saved:
        return
    own = {**dict(backbone.named_parameters()), **dict(backbone.named_buffers())}
    refuse_lost_adapters([name for name in saved if name not in own], prefix)
    for name, weight in saved.items():
        if name.endswith(_FIRST_MATRIX) and len(weight) != len(own[name]):
            raise OptionError(
                f'{prefix}{name} has rank {len(weight)} in the checkpoint, and lora.rank is {len(own[name])}: give '
                f'lora=dict(rank={len(weight)})'
            )
    alpha, own_alpha = saved.get('lora_alpha'), own.get('lora_alpha')
    if alpha is not None and own_alpha is not None and not own_alpha.is_meta and alpha.item() != own_alpha.item():
        raise OptionError(
            f'the adapters of the checkpoint have alpha={alpha.item():g}, and lora.alpha is {own_alpha.item():g}: give '
            f'lora=dict(alpha={alpha.item():g})'
        )


def refuse_lost_adapters(names: Iterable[str], prefix: str = '') -> None:
    """Refuse weights of adapters that a module does not have.

    Args:
        names: Names of weights that the module lacks.
        prefix: Text before each name in the error. Defaults to ''.

    Raises:
        OptionError: One of them belongs to an adapter.
    """
    lost = [prefix + name for name in names if is_adapter(name)]
    if lost:
        raise OptionError(
            f'the checkpoint has LoRA adapters that the backbone lacks ({first_few(lost, 3)}): give the backbone the '
            'option lora of that training, or merge them with `addp convert export CHECKPOINT OUT.safetensors` and '
            'load OUT.safetensors'
        )


def merge_adapters(state_dict: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Merge the adapters in the weights of a checkpoint.

    Args:
        state_dict: Weights of any model whose backbones have adapters.

    Returns:
        The weights of the same model without adapters.

    Raises:
        OptionError: The layer of an adapter, or ``lora_alpha``, is missing.
    """
    merged = {name: weight for name, weight in state_dict.items() if not is_adapter(name)}
    for name in state_dict:
        if name.endswith(_FIRST_MATRIX):
            layer = name.removesuffix(_FIRST_MATRIX)
            merged[f'{layer}.weight'] = _merged_weight(state_dict, layer)
    return merged


def _merged_weight(state_dict: Mapping[str, Tensor], layer: str) -> Tensor:
    """The weight of a layer with its adapter, as peft merges it."""
    weight = state_dict.get(f'{layer}.weight')
    parents = [layer.rsplit('.', depth)[0] for depth in range(1, layer.count('.') + 1)]
    owners = [f'{parent}.lora_alpha' for parent in parents] + ['lora_alpha']
    alpha = next((state_dict[name] for name in owners if name in state_dict), None)
    if weight is None or alpha is None:
        missing = f'{layer}.weight' if weight is None else 'lora_alpha'
        raise OptionError(f'{layer} has a LoRA adapter, but the checkpoint has no {missing}: it is not complete')
    if weight.ndim == 2:
        plain: nn.Module = nn.Linear(weight.shape[1], weight.shape[0], bias=False)
    else:
        plain = nn.Conv2d(weight.shape[1], weight.shape[0], tuple(weight.shape[2:]), bias=False)  # type: ignore[arg-type]
    holder = nn.ModuleDict(dict(layer=plain))
    adapter = {f'lora_{side}.default.weight': state_dict[f'{layer}.lora_{side}.default.weight'] for side in 'AB'}
    inject_adapters(holder, ['layer'], len(adapter['lora_A.default.weight']), alpha.item(), 0.0)
    holder['layer'].load_state_dict({'base_layer.weight': weight, **adapter})
    merge_lora(holder)
    return holder['layer'].weight.detach().to(weight.dtype)  # type: ignore[operator]
