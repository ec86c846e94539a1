# Copyright (c) addp_mm contributors. Apache-2.0.
"""LoRA adapters in a backbone (arXiv 2106.09685), made and merged by the package peft.

peft puts each adapted layer into another module, as its ``base_layer``. Here the state dict of the
backbone keeps the names of the plain backbone, so that weights of every layout load, and has the
adapters in addition: ``blocks.0.attn.qkv.weight``, ``blocks.0.attn.qkv.lora_A.default.weight``, and
one ``lora_alpha``.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, fields
from importlib.util import find_spec
from typing import Any

import torch
from torch import nn

from addp_mm.errors import first_few, suggest
from addp_mm.models.layers.errors import OptionError

LORA_OR_FROZEN_STAGES = (
    'lora freezes the backbone except for its adapters: leave frozen_stages at -1, and choose the blocks with '
    'lora.layers'
)


@dataclass(frozen=True)
class LoRAOptions:
    """The option ``lora`` of a backbone.

    Attributes:
        rank: Rank of the adapters.
        alpha: The adapters are multiplied by alpha / rank. None means the rank.
        dropout: Dropout before the adapters.
        layers: Numbers of the blocks (stages of a hierarchical backbone) that get adapters, as in
            ``out_indices``. None means all.
        targets: Names of the linear layers and convolutions in these blocks that get an adapter:
            the last parts of a dotted name, such as ``'qkv'`` or ``'mlp.fc1'``.
        trainable: Names of modules or parameters of the backbone that are trained too, such as
            ``'norm1'`` or ``'pos_embed'``. Everything else is frozen.
    """

    rank: int = 8
    alpha: float | None = None
    dropout: float = 0.0
    layers: int | Sequence[int] | None = None
    targets: str | Sequence[str] = ('qkv', 'proj')
    trainable: str | Sequence[str] = ()

    @classmethod
    def read(cls, lora: Mapping[str, Any]) -> LoRAOptions:
        """Read and check the option.

        Raises:
            OptionError: An option is unknown or out of range.
        """
        if not isinstance(lora, Mapping):
            raise OptionError(f'lora must be a dict of its options, such as dict(rank=8), got {lora!r}')
        known = [field.name for field in fields(cls)]
        for name in lora:
            if name not in known:
                raise OptionError(f'lora has no option {name!r}{suggest(name, known)}; it takes {", ".join(known)}')
        options = cls(**lora)
        if not isinstance(options.rank, int) or isinstance(options.rank, bool) or options.rank < 1:
            raise OptionError(f'lora.rank must be an integer of at least 1, got {options.rank!r}')
        for name, value in (('alpha', options.alpha or 1), ('dropout', options.dropout)):
            if not isinstance(value, (int, float)):
                raise OptionError(f'lora.{name} must be a number, got {value!r}')
        if options.alpha is not None and options.alpha <= 0:
            raise OptionError(f'lora.alpha must be positive, got {options.alpha}')
        if not 0 <= options.dropout < 1:
            raise OptionError(f'lora.dropout must be in [0, 1), got {options.dropout}')
        if not options.targets:
            raise OptionError("lora.targets must name at least one layer, such as 'qkv'")
        return options


def add_lora(
    backbone: nn.Module, lora: Mapping[str, Any], num_blocks: int, block_of: Callable[[str], int | None]
) -> None:
    """Add adapters to layers of a backbone, and freeze all else but ``lora.trainable``.

    Args:
        backbone: Module that is changed in place. At first its outputs stay the same.
        lora: See :class:`LoRAOptions`.
        num_blocks: Number of blocks that are built.
        block_of: Returns the number of the block of a module's name; None outside the blocks.

    Raises:
        OptionError: An option is wrong, a name is not found, or peft is not installed.
    """
    options = LoRAOptions.read(lora)
    names = _layers_to_adapt(backbone, options, num_blocks, block_of)
    trainable = _trainable_parameters(backbone, _as_tuple(options.trainable))
    alpha = options.alpha or options.rank
    inject_adapters(backbone, names, options.rank, alpha, options.dropout)
    for name in names:
        _call_the_layer(backbone.get_submodule(name.rpartition('.')[0]))
        layer = backbone.get_submodule(name)
        layer.register_state_dict_post_hook(_hide_base_layer)
        layer.register_load_state_dict_pre_hook(_find_base_layer)
    for parameter in trainable:
        parameter.requires_grad_(True)
    backbone.register_buffer('lora_alpha', torch.tensor(float(alpha)))


def merge_lora(backbone: nn.Module) -> None:
    """Add the adapters to the weights of their layers, and remove them.

    The outputs in eval mode stay the same. All parameters keep their ``requires_grad``.

    Args:
        backbone: Module that is changed in place.

    Raises:
        OptionError: It has no adapters, or they were merged before.
    """
    names = adapted_layers(backbone)
    if not names:
        raise OptionError(f'{type(backbone).__name__} has no LoRA adapters to merge, or they were merged before')
    for name in names:
        parent, _, attribute = name.rpartition('.')
        layer: Any = backbone.get_submodule(name)
        layer.merge(safe_merge=True)
        setattr(backbone.get_submodule(parent), attribute, layer.get_base_layer())
    if hasattr(backbone, 'lora_alpha'):
        del backbone.lora_alpha


def adapted_layers(backbone: nn.Module) -> list[str]:
    """Names of the layers with an adapter."""
    return [name.removesuffix('.lora_A') for name, _ in backbone.named_modules() if name.endswith('.lora_A')]


def number_of_block(name: str) -> int | None:
    """Number of the block that has a module, in a transformer whose blocks are ``blocks.N``.

    Args:
        name: Name of the module in the transformer.

    Returns:
        The number; None outside the blocks.
    """
    parts = name.split('.')
    return int(parts[1]) if parts[0] == 'blocks' and len(parts) > 1 else None


@contextmanager
def adapters_off(module: nn.Module) -> Iterator[None]:
    """Inside the block, a module computes what it does without its adapters.

    Args:
        module: Module with or without adapters.
    """
    layers: list[Any] = [module.get_submodule(name) for name in adapted_layers(module)]
    layers = [layer for layer in layers if not layer.disable_adapters]
    trained = [{name: p.requires_grad for name, p in layer.named_parameters()} for layer in layers]
    for layer in layers:
        layer.enable_adapters(False)
    try:
        yield
    finally:
        for layer, own in zip(layers, trained, strict=True):
            layer.enable_adapters(True)
            for name, parameter in layer.named_parameters():  # peft changes it, too
                parameter.requires_grad_(own[name])


def freeze_statistics(backbone: nn.Module) -> None:
    """Set batch norms without trained parameters to eval mode, so that their statistics stay."""
    for module in backbone.modules():
        frozen = not any(parameter.requires_grad for parameter in module.parameters(recurse=False))
        if isinstance(module, nn.modules.batchnorm._BatchNorm) and frozen:  # noqa: SLF001  # the base of all batch norms
            module.eval()


def inject_adapters(module: nn.Module, names: Sequence[str], rank: int, alpha: float, dropout: float) -> None:
    """Let peft put the named layers into its adapted layers, and freeze everything else.

    Args:
        module: Module that is changed in place.
        names: Names of linear layers and convolutions in it.
        rank: Rank of the adapters.
        alpha: The adapters are multiplied by alpha / rank.
        dropout: Dropout before the adapters.

    Raises:
        OptionError: peft is not installed.
    """
    if find_spec('peft') is None:
        raise OptionError('lora needs the package peft, which is not installed: pip install addp_mm[lora]')
    from peft import LoraConfig, inject_adapter_in_model

    config = LoraConfig(
        r=rank,
        lora_alpha=alpha,  # type: ignore[arg-type]  # peft accepts fractions too
        lora_dropout=dropout,
        target_modules='|'.join(map(re.escape, names)),  # a pattern of whole names
    )
    inject_adapter_in_model(config, module)


def _layers_to_adapt(
    backbone: nn.Module, options: LoRAOptions, num_blocks: int, block_of: Callable[[str], int | None]
) -> list[str]:
    """Names of the layers that ``options`` select."""
    numbers = _block_numbers(options.layers, num_blocks)
    layers = [name for name, part in backbone.named_modules() if _can_adapt(part) and block_of(name) in numbers]
    chosen = set()
    for target in _as_tuple(options.targets):
        matching = {name for name in layers if f'.{name}'.endswith(f'.{target}')}
        if not matching:
            existing = sorted({name.rpartition('.')[2] for name in layers} - {str(i) for i in range(100)})
            raise OptionError(
                f'lora.targets: no linear layer or convolution in the blocks of {type(backbone).__name__} is named '
                f'{target!r}{suggest(target, existing)}; there are {first_few(existing, 12)}'
            )
        chosen |= matching
    return [name for name in layers if name in chosen]


def _block_numbers(layers: int | Sequence[int] | None, count: int) -> list[int]:
    if layers is None:
        return list(range(count))
    numbers = [layers] if isinstance(layers, int) else list(layers)
    if not numbers or any(not -count <= number < count for number in numbers):
        raise OptionError(
            f'lora.layers {tuple(numbers)} must be numbers of blocks in [{-count}, {count - 1}]: {count} blocks are '
            'built'
        )
    return sorted({number % count for number in numbers})


def _can_adapt(layer: nn.Module) -> bool:
    """Whether peft's adapter of this layer computes the same sizes as the layer."""
    if isinstance(layer, nn.Conv2d):  # timm's convolutions that pad by themselves have another forward
        return type(layer).forward is nn.Conv2d.forward and layer.groups == 1
    return type(layer).forward is nn.Linear.forward


def _trainable_parameters(backbone: nn.Module, names: Sequence[str]) -> list[nn.Parameter]:
    """Parameters that have one of the names as a part of their dotted name."""
    found = []
    parts = {part for name, _ in backbone.named_parameters() for part in name.split('.') if not part.isdigit()}
    for wanted in names:
        matching = [p for name, p in backbone.named_parameters() if f'.{wanted}.' in f'.{name}.']
        if not matching:
            raise OptionError(
                f'lora.trainable: {type(backbone).__name__} has no module or parameter named {wanted!r}'
                f'{suggest(wanted, parts)}'
            )
        found += matching
    return found


def _call_the_layer(parent: Any) -> None:
    # timm's attentions of BEiT and EVA read the weight of qkv, without the adapter, unless they
    # add the bias in a second step.
    if hasattr(parent, 'qkv_bias_separate'):
        parent.qkv_bias_separate = True


def _hide_base_layer(_layer: nn.Module, state_dict: dict, prefix: str, *_: Any) -> None:
    for name in [name for name in state_dict if name.startswith(f'{prefix}base_layer.')]:
        state_dict[prefix + name[len(f'{prefix}base_layer.') :]] = state_dict.pop(name)


def _find_base_layer(_layer: nn.Module, state_dict: dict, prefix: str, *_: Any) -> None:
    for name in ('weight', 'bias'):
        if prefix + name in state_dict:
            state_dict[f'{prefix}base_layer.{name}'] = state_dict.pop(prefix + name)


def _as_tuple(names: str | Sequence[str]) -> tuple[str, ...]:
    return (names,) if isinstance(names, str) else tuple(names)
