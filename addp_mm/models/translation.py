# Copyright (c) addp_mm contributors. Apache-2.0.
"""Which weights of a checkpoint are meant for a module, whoever named them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from torch import Tensor, nn

from addp_mm.checkpoints.errors import CheckpointError
from addp_mm.errors import first_few
from addp_mm.layouts import Layout, find_layout
from addp_mm.layouts.layout import TARGETS

#: Where the parts of ADDP stand in its state dict.
PARTS = {
    'ADDPViT': 'backbone.',
    'TokenDecoder': 'neck.',
    'TokenHead': 'head.',
    'VQTokenizer': 'tokenizer.',
    'MaskedTokenPredictor': 'predictor.',
}

#: Without what a module is random, whatever else was loaded. A patch embedding may be left out on
# purpose.
CORES = {
    'ADDPViT': ('patch_embed.', 'blocks.'),
    'VQTokenizer': ('encoder.', 'decoder.', 'codes.'),
    'MaskedTokenPredictor': ('word_embed.', 'blocks.', 'decoder_blocks.'),
}


@dataclass
class Selection:
    """Weights named as in the module they are meant for.

    Attributes:
        weights: Those that start with ``prefix``, without it.
        prefix: What was cut off.
        layout: Foreign layout that they were converted from; None where they had this package's
            names.
        converted: The weights that the conversion started from.
    """

    weights: dict[str, Tensor]
    prefix: str = ''
    layout: Layout | None = None
    converted: Mapping[str, Tensor] = field(default_factory=dict)

    def options(self) -> dict:
        """Arguments that the tensors tell of the module they were made for; empty where they tell none."""
        if self.layout is None:
            return {}
        try:
            args = self.layout.build_args(self.converted)
        except ValueError:
            return {}
        return args.get(self.prefix[:-1], {}) if self.layout.target == 'ADDP' else args


def select_weights(
    state_dict: Mapping[str, Tensor],
    module: nn.Module,
    prefix: str,
    source: str,
    pos_grid: tuple[int, int] | None = None,
) -> Selection:
    """The weights of a checkpoint that a module is to load, converted where that makes more of them fit.

    A foreign layout is recognised in the whole checkpoint or in the part that ``prefix`` names, and
    converted for a module of the class that it converts to. Of a conversion that gives a whole
    ADDP, the part that the module is, is taken where ``prefix`` is empty.

    Args:
        state_dict: All tensors of the checkpoint, by name.
        module: Where they will be loaded.
        prefix: What the names of the wanted weights start with; '' for all.
        source: Name of the checkpoint in errors.
        pos_grid: (height, width) of the checkpoint's positions in patches, where it is known.

    Raises:
        CheckpointError: Nothing starts with ``prefix``, a recognised layout cannot be converted, or
            it is that of another class of this package than the module's.
    """
    own = set(module.state_dict())
    plain = Selection(_cut(state_dict, prefix), prefix)
    if own <= set(plain.weights):
        return plain
    best, targets, other = plain, targets_of(module), None
    for weights in [plain.weights, state_dict] if prefix else [plain.weights]:
        layout = find_layout(weights, {*targets, 'ADDP'})
        other = other or find_layout(weights)
        if layout is None:
            continue
        part = _part_of(module) if layout.target == 'ADDP' else ''
        cut = part if weights is plain.weights else prefix
        selection = Selection(_cut(_convert(layout, weights, source, pos_grid), cut), cut, layout, weights)
        if _hits(selection, own) > _hits(best, own):
            best = selection
    if not best.weights:
        raise CheckpointError(_no_prefix(state_dict, prefix, source))
    if best is plain and other is not None and targets and other.target not in {*targets, 'ADDP'}:
        # Parts of another model of the family have the same names and mean something else.
        raise CheckpointError(
            f'{source} has the layout of {other.name}, which holds {other.target} and not {type(module).__name__}.'
        )
    return best


def foreign_layout_of(state_dict: Mapping[str, Tensor], prefix: str) -> Layout | None:
    """The layout that a checkpoint, or the part of it named by ``prefix``, has; None for none that is known."""
    return find_layout(state_dict) or (find_layout(_cut(state_dict, prefix)) if prefix else None)


def core_parts(module: nn.Module) -> tuple[str, ...]:
    """Beginnings of the names without which a module of a class of this package is random; empty for any other."""
    return next((CORES[base.__name__] for base in type(module).__mro__ if base.__name__ in CORES), ())


def _cut(weights: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {name[len(prefix) :]: weight for name, weight in weights.items() if name.startswith(prefix)}


def _hits(selection: Selection, own: set[str]) -> int:
    return len(own & set(selection.weights))


def targets_of(module: nn.Module) -> set[str]:
    """The classes that layouts convert to, of which the module is one."""
    return {base.__name__ for base in type(module).__mro__} & set(TARGETS)


def _part_of(module: nn.Module) -> str:
    return next((PARTS[base.__name__] for base in type(module).__mro__ if base.__name__ in PARTS), '')


def _convert(
    layout: Layout, weights: Mapping[str, Tensor], source: str, pos_grid: tuple[int, int] | None
) -> dict[str, Tensor]:
    try:
        return layout.convert(weights, **(dict(grid=pos_grid) if layout.target == 'ADDPViT' else {}))
    except ValueError as error:
        raise CheckpointError(f'{source} has the layout of {layout.name} and cannot be converted: {error}') from error


def _no_prefix(state_dict: Mapping[str, Tensor], prefix: str, source: str) -> str:
    layout = find_layout(state_dict)
    if layout is not None:
        return (
            f'{source} has no weight that starts with {prefix!r}. It has the layout of {layout.name}, which is '
            f'converted to {layout.target}: leave prefix out.'
        )
    heads = sorted({name.split('.')[0] + '.' for name in state_dict if '.' in name})
    return f'{source} has no weight that starts with {prefix!r}. Its prefixes are {first_few(heads)}.'
