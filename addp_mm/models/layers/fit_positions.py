# Copyright (c) addp_mm contributors. Apache-2.0.
"""Resize the position embeddings of a checkpoint to the sizes of a module."""

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

Size = tuple[int, int]


@dataclass
class FittedPositions:
    """Result of :func:`fit_positions`.

    Attributes:
        resized: 'name (shape before) -> (shape after)' of every table that was resized.
        assumed: Sentences about tables whose size allows two interpretations.
        left_out: Names of weights that were removed: tables of indices, which depend on the size.
            The module has its own.
    """

    resized: list[str] = field(default_factory=list)
    assumed: list[str] = field(default_factory=list)
    left_out: list[str] = field(default_factory=list)


def fit_positions(
    weights: dict[str, Tensor],
    module: nn.Module,
    source_grid: Size | None = None,
    source_names: Collection[str] | None = None,
) -> FittedPositions:
    """Resize position embeddings to the module's sizes, height and width independently.

    The last part of a weight's name gives its kind:

    - ``pos_embed``, (1, P + H * W, C) with P extra tokens first, or (1, H, W, C);
    - ``rel_pos_h`` and ``rel_pos_w``, (2 * length - 1, C), of MViTv2 and ViTDet;
    - ``relative_position_bias_table`` and ``rel_pos_bias_table``, ((2 * H - 1) * (2 * W - 1) + E,
      heads), of Swin (E = 0) and BEiT (E = 3, for the class token).

    Extra tokens that only the weights have are dropped; those that only the module has keep its
    values.

    Args:
        weights: Named as in the module; changed in place.
        module: The module that will load them.
        source_grid: (height, width) in patches of the map of the weights. Defaults to None: the
            module's size if the number of positions agrees, else a square.
        source_names: Names of all weights of the checkpoint, including those that the module lacks.
            If they include a class token and the module's class has ``class_token_has_position``,
            the first position belongs to the class token. Defaults to None: ``weights``.

    Returns:
        The resized and removed weights.

    Raises:
        ValueError: A number of positions does not form a square map, or not that of
            ``source_grid``. The message names the weight.
    """
    # Not module.state_dict(): this is also called while a sharded module loads.
    done, own = FittedPositions(), {**dict(module.named_parameters()), **dict(module.named_buffers())}
    source_names = weights if source_names is None else source_names
    for name, weight in list(weights.items()):
        if name not in own:
            continue
        owner_name, _, leaf = name.rpartition('.')
        wanted, owner = own[name].detach(), module.get_submodule(owner_name)
        same_width = weight.dim() == wanted.dim() and weight.shape[-1:] == wanted.shape[-1:]
        if leaf in _INDICES and weight.shape != wanted.shape:
            del weights[name]
            done.left_out.append(name)
            continue
        if leaf == 'pos_embed' and same_width and weight.dim() == 3:
            class_token = name.removesuffix(leaf) + 'cls_token'
            has_class = getattr(owner, 'class_token_has_position', False) and class_token in source_names
            fitted = _fit_absolute(name, weight, wanted, owner, source_grid, (1,) if has_class else None, done)
        elif leaf == 'pos_embed' and same_width and weight.dim() == 4:
            fitted = _fit_map(weight, wanted)
        elif leaf in ('rel_pos_h', 'rel_pos_w') and same_width:
            fitted = resize_rel_pos(weight, len(wanted))
        elif leaf in _BIAS_TABLES and same_width:
            fitted = _fit_bias_table(name, weight, wanted, owner, source_grid)
        else:
            continue
        if fitted is not weight:
            done.resized.append(f'{name} {tuple(weight.shape)} -> {tuple(fitted.shape)}')
            weights[name] = fitted
    return done


def grid_of(module: nn.Module) -> Size | None:
    """(height, width) in patches of a transformer of addp_mm, mmpretrain, mmseg or timm."""
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
    """Resize position embeddings (1, H, W, C) to the size of ``wanted``."""
    (source_h, source_w), (h, w) = weight.shape[1:3], wanted.shape[1:3]
    if (source_h, source_w) == (h, w):
        return weight
    flat = resize_pos_embed(weight.flatten(1, 2), (source_h, source_w), (h, w), num_prefix_tokens=0)
    return flat.unflatten(1, (h, w))


def _fit_absolute(
    name: str,
    weight: Tensor,
    wanted: Tensor,
    owner: nn.Module,
    source_grid: Size | None,
    known_extra: tuple[int, ...] | None,
    done: FittedPositions,
) -> Tensor:
    """Resize position embeddings (1, P + H * W, C) to the owner's extra tokens and grid."""
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
    grid: Size,
    source_grid: Size | None,
    known_extra: tuple[int, ...] | None,
    done: FittedPositions,
) -> tuple[int, Size]:
    """Number of extra tokens (DeiT has two) and grid of a checkpoint's table."""
    length, known = weight.shape[1], source_grid or grid
    numbers = known_extra or tuple(dict.fromkeys((extra, 1, 0, 2)))
    readings = [(number, known) for number in numbers if length - number == math.prod(known)]
    if source_grid is None:
        readings += [(number, (side, side)) for number in numbers if (side := _side(length - number))]
    # The number of tokens that the module has comes first; then the module's grid, before a square.
    readings.sort(key=lambda reading: reading[0] != numbers[0])
    for number, other in readings[1:]:
        if other != readings[0][1]:
            # 13 x 15 positions and two tokens are as many as 14 x 14 positions and one token
            (h, w), (other_h, other_w) = readings[0][1], other
            done.assumed.append(
                f'{name} is read as {h}x{w} positions; if it is {other_h}x{other_w} positions and {number} '
                f'tokens, set pos_grid={other}.'
            )
            break
    if readings:
        return readings[0]
    positions = length - (known_extra or (extra,))[0]
    raise ValueError(
        f'{name} {tuple(weight.shape)} has {positions} positions, which are '
        + (
            f'not pos_grid={tuple(source_grid)}'
            if source_grid
            else f'not a square map and not the {grid[0]}x{grid[1]} of the module; load it with '
            "init_cfg=dict(type='addp_mm.Pretrained', …) and set its pos_grid=(height, width) in patches"
        )
    )


def _fit_bias_table(name: str, weight: Tensor, wanted: Tensor, owner: nn.Module, source_grid: Size | None) -> Tensor:
    """Resize a table of relative positions (rows, heads) to the owner's window."""
    window = _pair(getattr(owner, 'rel_pos_table_size', None)) or _pair(getattr(owner, 'window_size', None))
    entries, window = _split_table(len(wanted), window)
    source_entries, source = _split_table(len(weight), source_grid or window)
    if window is None:
        return weight
    if source is None:
        raise ValueError(
            f'{name} {tuple(weight.shape)} has {len(weight)} rows, which do not belong to a square window: '
            'that has (2 * side - 1) ** 2 rows, and 3 more with a class token. Set pos_grid=(height, width) '
            'in patches'
        )
    if (source_entries, source) == (entries, window):
        return weight
    table = resize_rel_pos_table(weight, source, window)
    tail = table[num_offsets(window) :] if source_entries else wanted[num_offsets(window) :].to(table)
    return torch.cat([table[: num_offsets(window)], tail[:entries]])


def _split_table(rows: int, window: Size | None) -> tuple[int, Size | None]:
    """Rows of the class token, and the window of the rest: ``window`` if it fits, else a square."""
    for entries in (0, CLASS_ENTRIES):
        if window and rows - entries == num_offsets(window):
            return entries, window
    for entries in (0, CLASS_ENTRIES):
        side = _side(rows - entries)
        if side % 2:
            return entries, ((side + 1) // 2,) * 2
    return 0, None


def _pair(size: object) -> Size | None:
    """(height, width) of a number or a pair of numbers; None for anything else."""
    if isinstance(size, int) and size > 0:
        return size, size
    if isinstance(size, (tuple, list)) and len(size) == 2 and all(isinstance(n, int) for n in size):
        return int(size[0]), int(size[1])
    return None


def _side(number: int) -> int:
    """Side of the square map of ``number`` positions; 0 if there is none."""
    side = math.isqrt(max(number, 0))
    return side if side * side == number else 0
