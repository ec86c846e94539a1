# Copyright (c) addp_mm contributors. Apache-2.0.
"""Select the weights of a checkpoint that belong to a module, in any known layout."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from torch import Tensor, nn

from addp_mm.checkpoints.errors import CheckpointError
from addp_mm.errors import first_few
from addp_mm.layouts import Layout, advice_on_prefix, find_layout, held_by
from addp_mm.layouts.key_rules import without_prefix
from addp_mm.models.layers.component import AdoptedWeights, Component


@dataclass
class Selection:
    """Weights of a module, under the module's names.

    Attributes:
        weights: The weights that start with ``prefix``, without it.
        prefix: The prefix that was removed.
        layout: Layout from which they were converted; None if they had this package's names.
        converted: The weights before the conversion; empty if there was none.
        adopted: Whether the module itself converted them and resized their positions.
        resized: 'name (shape before) -> (shape after)' of weights that it resized.
    """

    weights: dict[str, Tensor]
    prefix: str = ''
    layout: Layout | None = None
    converted: Mapping[str, Tensor] = field(default_factory=dict)
    adopted: bool = False
    resized: list[str] = field(default_factory=list)

    def options(self) -> dict:
        """Arguments of the module that can be inferred from the weights' shapes."""
        if self.layout is None:
            return {}
        try:
            args = self.layout.build_args(self.converted)
        except ValueError:
            return {}
        return args.get(self.prefix[:-1], {}) if self.layout.component == 'model' else args


def select_weights(
    state_dict: Mapping[str, Tensor],
    module: nn.Module,
    prefix: str,
    source: str,
    pos_grid: tuple[int, int] | None = None,
) -> Selection:
    """Select the weights of a checkpoint for a module; convert them if more names match then.

    The layout is recognised in the whole checkpoint, or in the part under ``prefix``. If it
    converts to a whole ADDP and ``prefix`` is empty, the weights of the module's component are
    taken.

    Args:
        state_dict: All tensors of the checkpoint, by name.
        module: The module that will load them.
        prefix: Prefix of the wanted weights' names; '' for all.
        source: Name of the checkpoint in errors.
        pos_grid: (height, width) of the checkpoint's positions in patches. Defaults to None: not
            known.

    Raises:
        CheckpointError: No name starts with ``prefix``, a recognised layout cannot be converted, or
            it is the layout of another component.
    """
    own = set(module.state_dict())
    component = component_of(module)
    plain = Selection(without_prefix(state_dict, prefix), prefix)
    adopted = _adopt(module, plain.weights, source, pos_grid)
    if adopted is not None:
        return Selection(adopted.weights, prefix, adopted=True, resized=adopted.resized)
    if own <= set(plain.weights):
        return plain
    best, other = plain, None
    for weights in [plain.weights, state_dict] if prefix else [plain.weights]:
        layout = find_layout(weights, {component, 'model'})
        other = other or find_layout(weights)
        if layout is None:
            continue
        cut = prefix
        if weights is plain.weights:
            cut = f'{component}.' if layout.component == 'model' and component not in ('', 'model') else ''
        converted = _convert(layout, weights, source, pos_grid)
        selection = Selection(without_prefix(converted, cut), cut, layout, weights)
        if len(own & set(selection.weights)) > len(own & set(best.weights)):
            best = selection
    if not best.weights:
        raise CheckpointError(_no_prefix(state_dict, prefix, source))
    if best is plain and component and other is not None and other.component not in (component, 'model'):
        # Components of related models use the same names for different weights.
        raise CheckpointError(
            f'{source} has the layout of {other.name}, which is for a {other.component}. {type(module).__name__} is a '
            f'{component}. {advice_on_prefix(state_dict, {component})}'
        )
    return best


def component_of(module: nn.Module) -> str:
    """Component of ADDP that a module is; '' for a module of another package."""
    return module.component if isinstance(module, Component) else ''


def foreign_layout_of(state_dict: Mapping[str, Tensor], prefix: str) -> Layout | None:
    """The layout of a checkpoint, or of its part under ``prefix``; None if it is not known."""
    return find_layout(state_dict) or (find_layout(without_prefix(state_dict, prefix)) if prefix else None)


def _adopt(
    module: nn.Module, weights: Mapping[str, Tensor], source: str, pos_grid: tuple[int, int] | None
) -> AdoptedWeights | None:
    if not (isinstance(module, Component) and weights):
        return None
    try:
        return module.adopt_weights(weights, pos_grid)
    except ValueError as error:
        raise CheckpointError(f'{source}: {error}.{sentence_on_model(weights, module)}') from error


def sentence_on_model(state_dict: Mapping[str, Tensor], module: nn.Module) -> str:
    """A space and a sentence that names the model of a checkpoint, if it is another one, or ''."""
    held = held_by(state_dict, module.state_dict())
    return f' The file holds {held}.' if held else ''


def _convert(
    layout: Layout, weights: Mapping[str, Tensor], source: str, pos_grid: tuple[int, int] | None
) -> dict[str, Tensor]:
    try:
        return layout.convert(weights, **(dict(grid=pos_grid) if layout.component == 'backbone' else {}))
    except ValueError as error:
        raise CheckpointError(f'{source} has the layout of {layout.name} and cannot be converted: {error}') from error


def _no_prefix(state_dict: Mapping[str, Tensor], prefix: str, source: str) -> str:
    prefixes = sorted({name.split('.')[0] + '.' for name in state_dict if '.' in name})
    return (
        f'{source} has no weight that starts with {prefix!r}. Its prefixes are {first_few(prefixes)}. '
        f'{advice_on_prefix(state_dict)}'
    )
