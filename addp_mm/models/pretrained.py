# Copyright (c) addp_mm contributors. Apache-2.0.
"""Weights from a checkpoint, with a report of what was and what was not taken."""
import logging
import math
import re
from collections.abc import Mapping
from typing import Any

import torch
from mmengine.logging import print_log
from mmengine.model import update_init_info
from mmengine.runner.checkpoint import CheckpointLoader
from torch import Tensor, nn

from addp_mm.compat.checkpoints import CheckpointError, find_state_dict
from addp_mm.models.layers import resize_pos_embed
from addp_mm.registry import WEIGHT_INITIALIZERS
from addp_mm.wording import first_few


@WEIGHT_INITIALIZERS.register_module()
class Pretrained:
    """Initialise a module from a checkpoint, or say why that is impossible.

    Unlike mmengine's initialiser of that name it resizes position embeddings to the module's grid, reports what it
    loaded, resized, left out and missed, and stops where nothing matches or a width differs, instead of training on
    from random weights.

    Args:
        checkpoint: Path, ``addp_mm://NAME`` for a file that the package ships, or an address that mmengine's
            CheckpointLoader takes (http, https, torchvision, …); ``.pth`` or ``.safetensors``.
        prefix: Load only the weights whose names start so, without it: ``'backbone.'``. Defaults to all.
        strict: Whether each weight of the module must be in the checkpoint and the other way round.
        pos_grid: (height, width) of the checkpoint's position embedding, in patches. Needed only where it is not
            square. Defaults to None.
        map_location: Device to read the file to. Defaults to 'cpu'.

    Examples:
        >>> init_cfg = dict(type='addp_mm.Pretrained', checkpoint='addp_mm://addp_nano-p8.safetensors',
        ...                 prefix='backbone.')
    """

    def __init__(self, checkpoint: str, prefix: str | None = None, strict: bool = False,
                 pos_grid: tuple[int, int] | None = None, map_location: Any = 'cpu') -> None:
        self.checkpoint = checkpoint
        self.prefix = prefix or ''
        if self.prefix and not self.prefix.endswith('.'):
            self.prefix += '.'
        self.strict = strict
        self.pos_grid = tuple(pos_grid) if pos_grid else None
        self.map_location = map_location

    def __call__(self, module: nn.Module) -> None:
        """Load the weights into ``module``.

        Raises:
            FileNotFoundError: There is no such file.
            CheckpointError: It cannot be read, nothing in it matches, a shape differs, or ``strict`` does not hold.
        """
        self._initialise_children(module)
        weights = self._select(CheckpointLoader.load_checkpoint(self.checkpoint, self.map_location))
        own = module.state_dict()
        matching = {name: weight for name, weight in weights.items() if name in own}
        if not matching:
            raise CheckpointError(
                f'{self.checkpoint}: no weight matches {type(module).__name__}. The file has '
                f'{first_few(f"{self.prefix}{name}" for name in weights)}; the module wants {first_few(own)}. '
                'Check prefix and architecture, or convert the checkpoint (tools/model_converters).')
        missing = [name for name in own if name not in matching and not name.endswith('num_batches_tracked')]
        left_out = [name for name in weights if name not in own]
        if self.strict and (missing or left_out):
            raise CheckpointError(f'{self.checkpoint} does not fit {type(module).__name__} exactly (strict=True): '
                                  f'missing {first_few(missing)}; left over {first_few(left_out)}.')
        resized = [f'{name} {tuple(weight.shape)} -> {tuple(own[name].shape)}'
                   for name, weight in matching.items() if weight.shape != own[name].shape]
        self._fit_positions(module, matching, own)
        self._load(module, matching)
        self._report(module, matching, resized, left_out, missing)
        _mark_initialised(module)
        if hasattr(module, '_params_init_info'):
            update_init_info(module, init_info=f'addp_mm.Pretrained: load from {self.checkpoint}')

    @staticmethod
    def _initialise_children(module: nn.Module) -> None:
        # mmengine calls the children's init_weights after every initialiser but its own Pretrained; done now, they do
        # not overwrite what is about to be loaded.
        for child in module.children():
            if hasattr(child, 'init_weights') and not getattr(child, 'is_init', False):
                child.init_weights()
                child.is_init = True

    def _select(self, checkpoint: Mapping) -> dict[str, Tensor]:
        weights = find_state_dict(checkpoint, self.checkpoint)
        chosen = {name[len(self.prefix):]: weight for name, weight in weights.items() if name.startswith(self.prefix)}
        if not chosen:
            heads = sorted({name.split('.')[0] + '.' for name in weights if '.' in name})
            raise CheckpointError(f'{self.checkpoint} has no weight that starts with {self.prefix!r}. '
                                  f'Its prefixes are {first_few(heads)}.')
        return chosen

    def _fit_positions(self, module: nn.Module, weights: dict, own: Mapping) -> None:
        for name, weight in weights.items():
            wanted = own[name]
            if name.split('.')[-1] != 'pos_embed' or weight.dim() != 3 or wanted.dim() != 3 \
                    or weight.shape[2] != wanted.shape[2]:
                continue
            grid = _grid_of(module.get_submodule(name.rpartition('.')[0]))
            if grid is None:
                continue
            extra = wanted.shape[1] - math.prod(grid)
            source_extra, source = self._source_grid(name, weight, extra, grid)
            weight = resize_pos_embed(weight, source, grid, source_extra)
            # Positions of extra tokens that only one side has: dropped, or the module's own.
            tokens = weight[:, :extra] if source_extra >= extra else wanted[:, :extra].to(weight)
            weights[name] = torch.cat([tokens, weight[:, source_extra:]], dim=1)

    def _source_grid(self, name: str, weight: Tensor, extra: int, grid: tuple[int, int]) -> tuple[int, tuple[int, int]]:
        """Number of extra tokens and grid of the checkpoint's positions."""
        length = weight.shape[1]
        known = self.pos_grid or grid
        for source_extra in dict.fromkeys((extra, 1, 0)):
            if length - source_extra == math.prod(known):
                if self.pos_grid is None and known[0] != known[1] and _is_square(math.prod(known)):
                    print_log(f'{self.prefix}{name} of {self.checkpoint} is taken to be {known[0]}x{known[1]} places '
                              f'like the module; if it is a square map, say pos_grid=(side, side).',
                              logger='current', level=logging.WARNING)
                return source_extra, known
        for source_extra in dict.fromkeys((extra, 1, 0)):
            side = math.isqrt(max(length - source_extra, 0))
            if self.pos_grid is None and _is_square(length - source_extra):
                return source_extra, (side, side)
        raise CheckpointError(
            f'{self.checkpoint}: the {length} positions of {self.prefix}{name} {tuple(weight.shape)} are '
            + (f'not pos_grid={self.pos_grid} with at most {max(extra, 1)} extra token(s).' if self.pos_grid else
               'no square map. Say pos_grid=(height, width) in patches.'))

    def _load(self, module: nn.Module, weights: Mapping) -> None:
        try:
            module.load_state_dict(weights, strict=False)
        except RuntimeError as error:
            wrong = re.findall(r'size mismatch for ([^:]+): .*?(\[[\d, ]*\]).*?(\[[\d, ]*\])', str(error))
            lines = [f'{self.prefix}{name}: {theirs} in the file, {ours} in the module' for name, theirs, ours in wrong]
            raise CheckpointError(
                f'{self.checkpoint} does not fit {type(module).__name__}:\n  '
                + first_few(lines or [str(error)], separator='\n  ')
                + '\nGive the module the sizes of the checkpoint (arch, embed_dims, patch_size, …), take another '
                'checkpoint, or load a part of it with prefix=.') from error

    def _report(self, module: nn.Module, loaded: Mapping, resized: list, left_out: list, missing: list) -> None:
        print_log(
            f'{type(module).__name__} from {self.checkpoint}{f" ({self.prefix}*)" if self.prefix else ""}: '
            f'loaded {len(loaded)}, resized {first_few(resized)}, left out {first_few(left_out)}, '
            f'missing {first_few(missing)}', logger='current')


def _mark_initialised(module: nn.Module) -> None:
    # mmpretrain's backbones draw a new pos_embed after the initialisers unless the type is exactly this.
    if isinstance(getattr(module, 'init_cfg', None), dict):
        module.init_cfg = {**module.init_cfg, 'type': 'Pretrained'}


def _grid_of(module: nn.Module) -> tuple[int, int] | None:
    """(height, width) of a transformer's patches, by the names that addp_mm, mmpretrain, mmseg and timm use."""
    patch_embed = getattr(module, 'patch_embed', None)
    for owner, name in ((module, 'patch_resolution'), (module, 'grid_size'), (patch_embed, 'grid_size'),
                        (patch_embed, 'init_out_size')):
        grid = getattr(owner, name, None)
        if isinstance(grid, (tuple, list)) and len(grid) == 2:
            return int(grid[0]), int(grid[1])
    return None


def _is_square(number: int) -> bool:
    return number > 0 and math.isqrt(number)**2 == number
