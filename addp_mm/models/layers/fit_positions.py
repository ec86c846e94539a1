# Copyright (c) addp_mm contributors. Apache-2.0.
"""Positions of a checkpoint made to fit a module: absolute ones, decomposed relative ones and tables of biases."""

import math
from collections.abc import Collection
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from addp_mm.models.layers.pos_embed import resize_pos_embed
from addp_mm.models.layers.rel_pos import resize_rel_pos
from addp_mm.models.layers.rel_pos_table import CLASS_ENTRIES, num_offsets, resize_rel_pos_table

_BIAS_TABLES = ('relative_position_bias_table', 'rel_pos_bias_table')
_INDICES = ('relative_position_index', 'rel_pos_index', 'relative_coords_table')


@dataclass
class FittedPositions:
    """What :func:`fit_positions` did.

    Attributes:
        resized: 'name (shape before) -> (shape after)' of every table that was resized.
        assumed: Sentences about sizes that could have been meant otherwise.
        left_out: Names of weights taken out: tables of indices, which belong to one size and are
            the module's own.
    """

    resized: list[str] = field(default_factory=list)
    assumed: list[str] = field(default_factory=list)
    left_out: list[str] = field(default_factory=list)


def fit_positions(
    weights: dict[str, Tensor],
    module: nn.Module,
    source_grid: tuple[int, int] | None = None,
    source_names: Collection[str] | None = None,
) -> FittedPositions:
    """Resize the positions among a module's weights to its own sizes, height and width apart.

    Known by the last part of their names: ``pos_embed`` (1, P + H * W, C), with P extra tokens
    first, or (1, H, W, C); ``rel_pos_h`` and ``rel_pos_w`` (2 * length - 1, C) of MViTv2 and
    ViTDet; ``relative_position_bias_table`` ((2 * H - 1) * (2 * W - 1) + E, heads) of Swin (E = 0)
    and BEiT (E = 3, for the class token). What only one side has for extra tokens is dropped, or
    the module's own.

    Args:
        weights: Named as in the module; those resized are replaced in it.
        module: Where they will be loaded.
        source_grid: (height, width) of the weights' map in patches. By default it has the module's
            size where the numbers of places agree, else it is square.
        source_names: Names of all weights at hand, those too that the module has no place for; by
            default those of ``weights``. A class token among them tells that one of the positions
            is its, where the module's class says that it always is (``class_token_has_position``).

    Returns:
        What was done.

    Raises:
        ValueError: A number of places is no square map, or not that of ``source_grid``; names the
            weight.
    """
    # Not module.state_dict(): this is also called while a sharded module loads.
    done, own = FittedPositions(), {**dict(module.named_parameters()), **dict(module.named_buffers())}
    source_names = weights if source_names is None else source_names
    for name, weight in list(weights.items()):
        if name not in own:
            continue
        owner, _, leaf = name.rpartition('.')
        wanted, owner = own[name].detach(), module.get_submodule(owner)
        if leaf == 'pos_embed' and weight.dim() == wanted.dim() == 3 and weight.shape[2] == wanted.shape[2]:
            with_class = (
                getattr(owner, 'class_token_has_position', False)
                and f'{name.removesuffix(leaf)}cls_token' in source_names
            )
            fitted = _fit_absolute(name, weight, wanted, owner, source_grid, (1,) if with_class else None, done)
        elif leaf == 'pos_embed' and weight.dim() == wanted.dim() == 4 and weight.shape[3] == wanted.shape[3]:
            fitted = _fit_map(weight, wanted)
        elif leaf in ('rel_pos_h', 'rel_pos_w') and weight.shape[1:] == wanted.shape[1:]:
            fitted = resize_rel_pos(weight, len(wanted))
        elif leaf in _BIAS_TABLES and weight.shape[1:] == wanted.shape[1:]:
            fitted = _fit_bias_table(name, weight, wanted, owner, source_grid)
        elif leaf in _INDICES and weight.shape != wanted.shape:
            del weights[name]
            done.left_out.append(name)
            continue
        else:
            continue
        if fitted is not weight:
            done.resized.append(f'{name} {tuple(weight.shape)} -> {tuple(fitted.shape)}')
            weights[name] = fitted
    return done


def grid_of(module: nn.Module) -> tuple[int, int] | None:
    """(height, width) of a transformer's patches, by the names that addp_mm, mmpretrain, mmseg and timm use."""
    patch_embed = getattr(module, 'patch_embed', None)
    for owner, name in (
        (module, 'patch_resolution'),
        (module, 'grid_size'),
        (patch_embed, 'grid_size'),
        (patch_embed, 'patches_resolution'),
        (patch_embed, 'init_out_size'),
    ):
        grid = _pair(getattr(owner, name, None))
        if grid:
            return grid
    return None


def _fit_map(weight: Tensor, wanted: Tensor) -> Tensor:
    source, size = weight.shape[1:3], wanted.shape[1:3]
    if source == size:
        return weight
    return resize_pos_embed(weight.flatten(1, 2), source, size, num_prefix_tokens=0).unflatten(1, tuple(size))


def _fit_absolute(
    name: str,
    weight: Tensor,
    wanted: Tensor,
    owner: nn.Module,
    source_grid: tuple[int, int] | None,
    known_extra: tuple[int, ...] | None,
    done: FittedPositions,
) -> Tensor:
    grid = grid_of(owner)
    if grid is None:
        return weight
    extra = wanted.shape[1] - math.prod(grid)
    source_extra, source = _source_of(name, weight, extra, grid, source_grid, known_extra, done)
    if (source_extra, tuple(source)) == (extra, grid):
        return weight
    table = resize_pos_embed(weight, source, grid, source_extra, antialias=getattr(owner, 'pos_antialias', False))
    tokens = table[:, :extra] if source_extra >= extra else wanted[:, :extra].to(weight)
    return torch.cat([tokens, table[:, source_extra:]], dim=1)


def _source_of(
    name: str,
    weight: Tensor,
    extra: int,
    grid: tuple[int, int],
    source_grid: tuple[int, int] | None,
    known_extra: tuple[int, ...] | None,
    done: FittedPositions,
) -> tuple[int, tuple[int, int]]:
    """Number of extra tokens (a class token, DeiT's distillation token) and grid of a table of positions."""
    length, known = weight.shape[1], source_grid or grid
    numbers = known_extra or tuple(dict.fromkeys((extra, 1, 0, 2)))
    side = _side(length - extra) if known_extra is None else 0
    for number in numbers:
        if length - number != math.prod(known):
            continue
        if source_grid is None and number != extra and side:
            # 13 x 15 places and one more token than the module's are as many as 14 x 14 and the
            # module's tokens.
            done.assumed.append(
                f'{name} is taken to be {side}x{side} places; if it is {grid[0]}x{grid[1]} like the '
                f'module and {number} tokens, say pos_grid={grid}.'
            )
            return extra, (side, side)
        if source_grid is None and grid[0] != grid[1] and _side(length - number):
            done.assumed.append(
                f'{name} is taken to be {grid[0]}x{grid[1]} places like the module; if it is a '
                'square map, say pos_grid=(side, side).'
            )
        return number, known
    for number in numbers:
        side = _side(length - number)
        if source_grid is None and side:
            return number, (side, side)
    places = length - (known_extra or (extra,))[0]
    raise ValueError(
        f'{name} {tuple(weight.shape)} has {places} places, which are '
        + (
            f'not pos_grid={tuple(source_grid)}'
            if source_grid
            else f'no square map and not the {grid[0]}x{grid[1]} of the module; load it by '
            "init_cfg=dict(type='addp_mm.Pretrained', …) and say pos_grid=(height, width) in patches"
        )
    )


def _fit_bias_table(
    name: str, weight: Tensor, wanted: Tensor, owner: nn.Module, source_grid: tuple[int, int] | None
) -> Tensor:
    window = _pair(getattr(owner, 'rel_pos_table_size', None)) or _pair(getattr(owner, 'window_size', None))
    entries, window = _split_table(len(wanted), window)
    source_entries, source = _split_table(len(weight), source_grid or window)
    if window is None:
        return weight
    if source is None:
        raise ValueError(
            f'{name} {tuple(weight.shape)} has {len(weight)} rows: those of no square window, which has '
            '(2 * side - 1) ** 2, and 3 more for a class token. Say pos_grid=(height, width) in patches'
        )
    if (source_entries, source) == (entries, window):
        return weight
    table = resize_rel_pos_table(weight, source, window)
    tail = table[num_offsets(window) :] if source_entries else wanted[num_offsets(window) :].to(table)
    return torch.cat([table[: num_offsets(window)], tail[:entries]])


def _split_table(rows: int, window: tuple[int, int] | None) -> tuple[int, tuple[int, int] | None]:
    """Rows for a class token, and the window of the others: the given one where it fits, else a square one."""
    for entries in (0, CLASS_ENTRIES):
        if window and rows - entries == num_offsets(window):
            return entries, window
    for entries in (0, CLASS_ENTRIES):
        side = _side(rows - entries)
        if side % 2:
            return entries, ((side + 1) // 2,) * 2
    return 0, None


def _pair(size) -> tuple[int, int] | None:
    if isinstance(size, int) and size > 0:
        return size, size
    if isinstance(size, (tuple, list)) and len(size) == 2 and all(isinstance(n, int) for n in size):
        return int(size[0]), int(size[1])
    return None


def _side(number: int) -> int:
    """Side of the square of that area; 0 where there is none."""
    side = math.isqrt(max(number, 0))
    return side if side * side == number else 0
