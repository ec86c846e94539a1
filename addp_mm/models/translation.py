# Copyright (c) addp_mm contributors. Apache-2.0.
"""Which weights of a checkpoint are meant for a module, whoever named them."""
from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor, nn

from addp_mm.compat.checkpoints import CheckpointError
from addp_mm.layouts import Layout, find_layout
from addp_mm.wording import first_few

#: Where the parts of ADDP stand in its state dict.
PARTS = {'ADDPViT': 'backbone.', 'TokenDecoder': 'neck.', 'TokenHead': 'head.', 'VQTokenizer': 'tokenizer.',
         'MaskedTokenPredictor': 'predictor.'}


@dataclass
class Selection:
    """Weights named as in the module they are meant for.

    Attributes:
        weights: Those that start with ``prefix``, without it.
        prefix: What was cut off.
        layout: Foreign layout that they were converted from; None where they had this package's names.
    """
    weights: dict[str, Tensor]
    prefix: str = ''
    layout: Layout | None = None


def select_weights(state_dict: Mapping[str, Tensor], module: nn.Module, prefix: str, source: str) -> Selection:
    """The weights of a checkpoint that a module is to load, converted where that makes more of them fit.

    A foreign layout is recognised in the whole checkpoint or in the part that ``prefix`` names, and converted for a
    module of the class that it converts to. Of a conversion that gives a whole ADDP, the part that the module is, is
    taken where ``prefix`` is empty.

    Args:
        state_dict: All tensors of the checkpoint, by name.
        module: Where they will be loaded.
        prefix: What the names of the wanted weights start with; '' for all.
        source: Name of the checkpoint in errors.

    Raises:
        CheckpointError: Nothing starts with ``prefix``, or a recognised layout cannot be converted.
    """
    own = set(module.state_dict())
    plain = Selection(_cut(state_dict, prefix), prefix)
    if own <= set(plain.weights):
        return plain
    best, tried = plain, [plain.weights, dict(state_dict)] if prefix else [plain.weights]
    for weights in tried:
        layout = find_layout(weights) if weights else None
        if layout is None or not _gives(layout, module):
            continue
        converted = _convert(layout, weights, source)
        rest = '' if weights is plain.weights else prefix
        part = rest or (_part_of(module) if layout.target == 'ADDP' else '')
        selection = Selection(_cut(converted, part), prefix or part, layout)
        if _hits(selection, own) > _hits(best, own):
            best = selection
    if not best.weights:
        raise CheckpointError(_no_prefix(state_dict, prefix, source))
    return best


def foreign_layout_of(state_dict: Mapping[str, Tensor], prefix: str) -> Layout | None:
    """The layout that a checkpoint, or the part of it named by ``prefix``, has; None for none that is known."""
    return find_layout(state_dict) or (find_layout(_cut(state_dict, prefix)) if prefix else None)


def _cut(weights: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {name[len(prefix):]: weight for name, weight in weights.items() if name.startswith(prefix)}


def _hits(selection: Selection, own: set[str]) -> int:
    return len(own & set(selection.weights))


def _gives(layout: Layout, module: nn.Module) -> bool:
    classes = {base.__name__ for base in type(module).__mro__}
    return layout.target in classes or (layout.target == 'ADDP')


def _part_of(module: nn.Module) -> str:
    return next((PARTS[base.__name__] for base in type(module).__mro__ if base.__name__ in PARTS), '')


def _convert(layout: Layout, weights: Mapping[str, Tensor], source: str) -> dict[str, Tensor]:
    try:
        return layout.convert(weights)
    except ValueError as error:
        raise CheckpointError(f'{source} has the layout of {layout.name} and cannot be converted: {error}') from error


def _no_prefix(state_dict: Mapping[str, Tensor], prefix: str, source: str) -> str:
    layout = find_layout(state_dict)
    if layout is not None:
        return (f'{source} has no weight that starts with {prefix!r}. It has the layout of {layout.name}, which is '
                f'converted to {layout.target}: leave prefix out.')
    heads = sorted({name.split('.')[0] + '.' for name in state_dict if '.' in name})
    return f'{source} has no weight that starts with {prefix!r}. Its prefixes are {first_few(heads)}.'
