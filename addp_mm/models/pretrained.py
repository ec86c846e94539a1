# Copyright (c) addp_mm contributors. Apache-2.0.
"""Weights from a checkpoint, with a report of what was and what was not taken."""

import logging
import re
from collections.abc import Mapping
from typing import Any

from mmengine.logging import print_log
from mmengine.model import update_init_info
from mmengine.runner.checkpoint import CheckpointLoader
from torch import Tensor, nn

from addp_mm.checkpoints.errors import CheckpointError
from addp_mm.checkpoints.reading import find_state_dict
from addp_mm.errors import first_few
from addp_mm.layouts import advice_on_prefix
from addp_mm.layouts.key_rules import dotted
from addp_mm.models.layers.fit_positions import FittedPositions, fit_positions
from addp_mm.models.layers.resize_patch import resize_patch_projection
from addp_mm.models.translation import Selection, core_parts, foreign_layout_of, select_weights, targets_of
from addp_mm.registry import WEIGHT_INITIALIZERS


@WEIGHT_INITIALIZERS.register_module()
class Pretrained:
    """Initialise a module from a checkpoint, or say why that is impossible.

    Unlike mmengine's initialiser of that name it converts the layouts of :mod:`addp_mm.layouts` on
    the way, resizes positions to the module's grid, reports what it loaded, resized, left out and
    missed, and stops where nothing matches or a width differs, instead of training on from random
    weights.

    Args:
        checkpoint: Path, ``addp_mm://NAME`` for a file that the package ships,
            ``hf://owner/repo[@revision]/path`` for one on the Hugging Face Hub, or an address that mmengine's
            CheckpointLoader takes (http, https, torchvision, …); ``.pth`` or ``.safetensors``.
        prefix: Load only the weights whose names start so, without it: ``'backbone.'``. Names are
            those of this package where the checkpoint was converted. It may begin with a mapping of
            the file that holds weights beside or in the place of ``state_dict``: ``'model_ema.'``.
            Defaults to all; of a converted checkpoint of the whole ADDP, to the part that the
            module is.
        strict: Whether each weight of the module must be in the checkpoint and the other way round.
        pos_grid: (height, width) of the checkpoint's positions, in patches. Needed only where they
            are not square, or could be: 196 positions are taken for 14 x 14, not for 13 x 15 and a
            class token. Defaults to None.
        resize_patch: Whether a patch embedding of another patch size is resized (FlexiViT, arXiv
            2212.08013) instead of refused. Defaults to False.
        map_location: Device to read the file to. Defaults to 'cpu'.

    Examples:
        >>> init_cfg = dict(type='addp_mm.Pretrained', checkpoint='addp_mm://addp_nano-p8.safetensors',
        ...                 prefix='backbone.')
        >>> init_cfg = dict(type='addp_mm.Pretrained', checkpoint='hf://Changyao/ADDP/addp-vit-base-16.pth')
    """

    def __init__(
        self,
        checkpoint: str,
        prefix: str | None = None,
        strict: bool = False,
        pos_grid: tuple[int, int] | None = None,
        resize_patch: bool = False,
        map_location: Any = 'cpu',
    ) -> None:
        self.checkpoint = checkpoint
        self.prefix = dotted(prefix)
        self.strict = strict
        self.pos_grid = tuple(pos_grid) if pos_grid else None
        self.resize_patch = resize_patch
        self.map_location = map_location

    def __call__(self, module: nn.Module) -> None:
        """Load the weights into ``module``.

        Raises:
            FileNotFoundError: There is no such file.
            CheckpointError: It cannot be read, nothing in it matches, a part of a class of this
                package would stay random, a shape differs, or ``strict`` does not hold.
        """
        self._initialise_children(module)
        state_dict = find_state_dict(
            CheckpointLoader.load_checkpoint(self.checkpoint, self.map_location), self.checkpoint, self.prefix
        )
        selection = select_weights(state_dict, module, self.prefix, self.checkpoint, self.pos_grid)
        own = module.state_dict()
        matching = {name: weight for name, weight in selection.weights.items() if name in own}
        if not matching:
            raise CheckpointError(self._nothing_matches(module, own, selection, state_dict))
        missing = [name for name in own if name not in matching and not name.endswith('num_batches_tracked')]
        left_out = [name for name in selection.weights if name not in own]
        self._refuse_random_parts(module, matching, left_out)
        if self.strict and (missing or left_out):
            raise CheckpointError(
                f'{self.checkpoint} does not fit {type(module).__name__} exactly (strict=True): '
                f'missing {first_few(missing)}; left over {first_few(left_out)}.'
            )
        fitted = self._fit_positions(module, matching, selection)
        fitted.resized += self._fit_patches(matching, own, selection)
        self._load(module, matching, selection)
        self._report(module, selection, matching, fitted, left_out, missing)
        _mark_initialised(module)
        if hasattr(module, '_params_init_info'):
            update_init_info(module, init_info=f'addp_mm.Pretrained: load from {self.checkpoint}')

    @staticmethod
    def _initialise_children(module: nn.Module) -> None:
        # mmengine calls the children's init_weights after every initialiser but its own Pretrained;
        # done now, they do not overwrite what is about to be loaded.
        for child in module.children():
            if hasattr(child, 'init_weights') and not getattr(child, 'is_init', False):
                child.init_weights()
                child.is_init = True

    def _nothing_matches(self, module: nn.Module, own: Mapping, selection: Selection, state_dict: Mapping) -> str:
        theirs = first_few(f'{selection.prefix}{name}' for name in selection.weights)
        layout = foreign_layout_of(state_dict, self.prefix)
        advice = (
            advice_on_prefix(state_dict, targets_of(module) or None)
            if layout is None
            else f'It has the layout of {layout.name}, which is converted for {layout.target} alone.'
        )
        return (
            f'{self.checkpoint}: no weight matches {type(module).__name__}. The file has {theirs}; the module '
            f'wants {first_few(own)}. {advice}'
        )

    def _refuse_random_parts(self, module: nn.Module, matching: Mapping, left_out: list[str]) -> None:
        # Names of another layout may be ours by chance, for the positions or for all blocks.
        lacking = [part for part in core_parts(module) if not any(name.startswith(part) for name in matching)]
        if 'blocks.' in lacking or lacking and left_out:
            raise CheckpointError(
                f'{self.checkpoint} has no {" and no ".join(f"{part}*" for part in lacking)} for '
                f'{type(module).__name__}, which would be trained from random weights. Left over are '
                f'{first_few(left_out)}: the file has none of the known layouts. Rename them, or take out what is not '
                'meant to be loaded (docs/checkpoints.md).'
            )

    def _fit_positions(self, module: nn.Module, weights: dict, selection: Selection) -> FittedPositions:
        try:
            done = fit_positions(weights, module, self.pos_grid, selection.weights)
        except ValueError as error:
            raise CheckpointError(f'{self.checkpoint}: {selection.prefix}{error}') from error
        for sentence in done.assumed:
            print_log(f'{self.checkpoint}: {selection.prefix}{sentence}', logger='current', level=logging.WARNING)
        return done

    def _fit_patches(self, weights: dict, own: Mapping, selection: Selection) -> list[str]:
        resized = []
        for name, weight in weights.items():
            wanted = own[name]
            if (
                'patch_embed' not in name
                or not weight.dim() == wanted.dim() == 4
                or weight.shape[:2] != wanted.shape[:2]
                or weight.shape == wanted.shape
            ):
                continue
            theirs, ours = ('x'.join(map(str, kernel.shape[2:])) for kernel in (weight, wanted))
            if not self.resize_patch:
                raise CheckpointError(
                    f'{self.checkpoint}: {selection.prefix}{name} is made for patches of {theirs} pixels, and the '
                    f'module has patches of {ours}. Give the module patch_size={weight.shape[-1]}, or resize the '
                    'embedding with resize_patch=True of addp_mm.Pretrained.'
                )
            weights[name] = resize_patch_projection(weight, tuple(wanted.shape[2:]))
            resized.append(f'{name} {tuple(weight.shape)} -> {tuple(wanted.shape)}')
        return resized

    def _load(self, module: nn.Module, weights: Mapping[str, Tensor], selection: Selection) -> None:
        try:
            module.load_state_dict(weights, strict=False)
        except RuntimeError as error:
            wrong = re.findall(r'size mismatch for ([^:]+): .*?(\[[\d, ]*\]).*?(\[[\d, ]*\])', str(error))
            lines = [
                f'{selection.prefix}{name}: {theirs} in the file, {ours} in the module' for name, theirs, ours in wrong
            ]
            raise CheckpointError(
                f'{self.checkpoint} does not fit {type(module).__name__}:\n  '
                + first_few(lines or [str(error)], separator='\n  ')
                + '\nGive the module the sizes of the checkpoint (arch, embed_dims, patch_size, …), take another '
                f'checkpoint, or load a part of it (prefix).{_options_of(selection)}'
            ) from error

    def _report(
        self,
        module: nn.Module,
        selection: Selection,
        loaded: Mapping,
        fitted: FittedPositions,
        left_out: list,
        missing: list,
    ) -> None:
        part = f' ({selection.prefix}*)' if selection.prefix else ''
        how = (
            f', converted from the layout of {selection.layout.name} ({len(selection.converted)} tensors in the '
            f'file, {len(selection.weights)} of them for this module)'
            if selection.layout
            else ''
        )
        kept = f', kept its own {first_few(fitted.left_out)} (made for its size)' if fitted.left_out else ''
        why = ' (the module has none such)' if left_out else ''
        warnings = []
        # Fewer than half: rarely what was meant, e.g. only the positions of another package's ViT.
        if len(loaded) < len(missing):
            warnings.append('Less than half of the module was found: check that this is meant.')
        torn = _torn(loaded, left_out)
        if torn:
            warnings.append(
                f'Of blocks that were loaded, parts were left out ({first_few(torn)}): the module computes '
                f'something else than what was trained.{_options_of(selection)}'
            )
        lacking = _torn(loaded, [name for name in missing if name.endswith(('.weight', '.bias'))])
        if lacking:
            warnings.append(f'Of blocks that were loaded, the file lacks {first_few(lacking)}: is it damaged?')
        print_log(
            ' '.join(
                [
                    f'{type(module).__name__} from {self.checkpoint}{part}{how}: '
                    f'loaded {len(loaded)}, resized {first_few(fitted.resized)}, '
                    f'left out {first_few(left_out)}{why}{kept}, '
                    f'missing {first_few(missing)}{" (they stay as initialised)" if missing else ""}.',
                    *warnings,
                ]
            ),
            logger='current',
            level=logging.WARNING if warnings else logging.INFO,
        )


def _torn(loaded: Mapping, others: list[str]) -> list[str]:
    """Names not loaded that belong to a numbered block, 'blocks.0.', of which other weights were."""
    block = re.compile(r'(?:\w+\.)+?\d+\.')
    here = {match[0] for match in map(block.match, loaded) if match}
    return [name for name in others if (match := block.match(name)) and match[0] in here]


def _options_of(selection: Selection) -> str:
    """What the weights themselves tell about the module that they were made for, as a sentence."""
    options = ', '.join(f'{name}={value!r}' for name, value in selection.options().items())
    return f' The checkpoint is made for {options}.' if options else ''


def _mark_initialised(module: nn.Module) -> None:
    # mmpretrain's backbones draw a new pos_embed after the initialisers unless the type is exactly
    # this.
    if isinstance(getattr(module, 'init_cfg', None), dict):
        module.init_cfg = {**module.init_cfg, 'type': 'Pretrained'}
