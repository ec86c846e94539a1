# Copyright (c) addp_mm contributors. Apache-2.0.
"""Initialisation from a checkpoint, with a report of the loaded weights."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterable, Mapping
from typing import Any

from mmengine.logging import print_log
from mmengine.model import BaseModule, update_init_info
from mmengine.runner.checkpoint import CheckpointLoader
from torch import Tensor, nn

from addp_mm.checkpoints.comparison import Comparison, compare_weights
from addp_mm.checkpoints.errors import CheckpointError
from addp_mm.checkpoints.finite import refuse_non_finite
from addp_mm.checkpoints.state_dict import find_state_dict
from addp_mm.errors import first_few
from addp_mm.layouts import advice_on_prefix, find_prefixes
from addp_mm.layouts.key_rules import dotted, without_prefix
from addp_mm.models.layers.adapt_channels import adapt_input_channels
from addp_mm.models.layers.component import Component
from addp_mm.models.layers.errors import OptionError
from addp_mm.models.layers.fit_positions import FittedPositions, fit_positions
from addp_mm.models.layers.lora_weights import is_adapter, refuse_lost_adapters
from addp_mm.models.layers.resize_patch import resize_patch_projection
from addp_mm.models.select_weights import Selection, component_of, foreign_layout_of, select_weights, sentence_on_model
from addp_mm.registry import WEIGHT_INITIALIZERS


@WEIGHT_INITIALIZERS.register_module()
class Pretrained:
    """Initialise a module from a checkpoint, or raise an error.

    Differences from mmengine's initialiser of the same name: it converts the layouts of
    :mod:`addp_mm.layouts`, resizes positions to the module's grid, and reports which weights were
    loaded, resized, left out or missing. If nothing matches or a shape differs, it raises an error
    instead of leaving the module random.

    Args:
        checkpoint: Path (``.pth`` or ``.safetensors``), ``addp_mm://NAME`` for a file that the
            package ships, ``hf://owner/repo[@revision]/path`` for a file on the Hugging Face Hub,
            or any address for mmengine's CheckpointLoader (http, https, torchvision, …).
        prefix: Load only the weights whose names start with it, and remove it: ``'backbone.'``. If
            the checkpoint is converted, names are those of this package. The prefix may start with
            the key of another state dict in the file: ``'model_ema.'``. Defaults to None: all
            weights; from a converted checkpoint of the whole ADDP, the module's component.
        strict: Whether the checkpoint and the module must have the same names. Defaults to False.
        pos_grid: (height, width) of the checkpoint's positions, in patches. It is only needed if
            they are not square, or only seem to be square: 196 positions are read as 14 x 14, not
            as 13 x 15 and a class token. Defaults to None.
        resize_patch: Whether a patch embedding of another patch size is resized (FlexiViT, arXiv
            2212.08013) instead of refused. Defaults to False.
        adapt_in_channels: Whether the first convolution is adapted to images with another number of
            channels instead of refused: added up for one channel, repeated and scaled for more.
            Defaults to False.
        map_location: Device to which the file is read. Defaults to 'cpu'.

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
        adapt_in_channels: bool = False,
    ) -> None:
        self.checkpoint = checkpoint
        self.prefix = dotted(prefix)
        self.strict = strict
        self.pos_grid = (pos_grid[0], pos_grid[1]) if pos_grid else None
        self.resize_patch = resize_patch
        self.adapt_in_channels = adapt_in_channels
        self.map_location = map_location

    def __call__(self, module: nn.Module) -> None:
        """Load the weights into ``module``.

        Raises:
            FileNotFoundError: The file does not exist.
            CheckpointError: The file cannot be read, nothing in it matches, required weights are
                missing, a shape differs, a weight is NaN or Inf, or ``strict`` is not met.
        """
        _initialise_children(module)
        state_dict = find_state_dict(
            CheckpointLoader.load_checkpoint(self.checkpoint, self.map_location, logger='silent'),
            self.checkpoint,
            self.prefix,
        )
        selection = select_weights(state_dict, module, self.prefix, self.checkpoint, self.pos_grid)
        names = compare_weights(selection.weights, module)
        if not (names.matching or names.mismatched):
            raise CheckpointError(self._nothing_matches(module, selection, state_dict))
        self._refuse_lost_adapters(names)
        # An adapter without weights changes nothing.
        missing = [name for name in names.missing if not (name.endswith('num_batches_tracked') or is_adapter(name))]
        weights = {name: weight for name, weight in selection.weights.items() if name not in names.unexpected}
        self._check_required(module, selection, names)
        if self.strict and (missing or names.unexpected):
            raise CheckpointError(
                f'{self.checkpoint} does not fit {type(module).__name__} exactly (strict=True): missing '
                f'{first_few(missing)}; unexpected {first_few(names.unexpected)}.'
            )
        fitted = self._fit_positions(module, weights, selection)
        fitted.resized += selection.resized
        fitted.resized += self._fit_channels(module, weights, selection)
        fitted.resized += self._fit_patches(module, weights, selection)
        self._check_components(module, weights, selection)
        refuse_non_finite(weights, module, self.checkpoint)
        self._load(module, weights, selection)
        self._report(module, selection, weights, fitted, names.unexpected, missing)
        if isinstance(module, BaseModule) and isinstance(module.init_cfg, dict) and not isinstance(module, Component):
            # mmpretrain's backbones re-initialise pos_embed unless the type has exactly this name.
            module.init_cfg['type'] = 'Pretrained'
        if hasattr(module, '_params_init_info'):
            update_init_info(module, init_info=f'addp_mm.Pretrained: load from {self.checkpoint}')

    def _nothing_matches(self, module: nn.Module, selection: Selection, state_dict: Mapping) -> str:
        component, layout = component_of(module), foreign_layout_of(state_dict, self.prefix)
        start = f'{self.checkpoint}: no weight matches {_name_of(module)}.'
        converted = {component, 'model'} if component else None
        held = sentence_on_model(state_dict, module)
        if component and layout is None and not selection.adopted and find_prefixes(state_dict, {component}):
            return f'{start} {advice_on_prefix(state_dict, {component})}'
        prefix, part = _prefix_of(module.state_dict(), state_dict), _prefix_of(state_dict, module.state_dict())
        if prefix:
            return f'{start} The file has its names under the prefix {prefix!r}: set prefix={prefix!r}.'
        if part:
            return f'{start} They are those of its {part[:-1]}: set init_cfg of {part[:-1]}.'
        if held and (layout is None or component):
            return f'{start}{held}'
        if layout is not None:
            return f'{start} It has the layout of {layout.name}, which is only converted to a {layout.component}.'
        theirs = first_few((name for name in state_dict if name.startswith(self.prefix)), 3)
        return (
            f'{start} The file has {theirs}; the module has {first_few(module.state_dict(), 3)}. '
            f'{advice_on_prefix(state_dict, converted)}'
        )

    def _refuse_lost_adapters(self, names: Comparison) -> None:
        try:
            refuse_lost_adapters(names.unexpected)
        except OptionError as error:
            raise CheckpointError(f'{self.checkpoint}: {error}') from error

    def _check_required(self, module: nn.Module, selection: Selection, names: Comparison) -> None:
        # Some names of an unknown layout may match by accident, e.g. the position embeddings or all
        # blocks.
        required = module.required_weights if isinstance(module, Component) else ()
        loaded = [*names.matching, *names.mismatched]
        lacking = [start for start in required if not any(name.startswith(start) for name in loaded)]
        # A file without unexpected names may lack weights on purpose, e.g. the patch embedding.
        if 'blocks.' in lacking or (lacking and names.unexpected):
            raise CheckpointError(
                f'{self.checkpoint} has no {" and no ".join(f"{start}*" for start in lacking)} for '
                f'{type(module).__name__}, which would stay random.'
                + (
                    sentence_on_model(selection.weights, module)
                    or f' Unexpected are {first_few(names.unexpected)}: the file has no known layout. Rename the '
                    'weights, or remove those that must not be loaded (docs/checkpoints.md).'
                )
            )

    def _check_components(self, module: nn.Module, weights: Mapping[str, Tensor], selection: Selection) -> None:
        """Let each component of a whole model check its weights.

        Weights of another shape have an error of their own, which names the sizes.
        """
        shapes = compare_weights(weights, module).mismatched
        if selection.adopted or any(not name.endswith('pos_embed') for name in shapes):
            return
        for name, part in module.named_modules():
            own = without_prefix(selection.weights, dotted(name))
            if not (isinstance(part, Component) and own):
                continue
            try:
                part.check_weights(own)
            except ValueError as error:
                raise CheckpointError(f'{self.checkpoint}: {error} ({selection.prefix}{dotted(name)}*).') from error

    def _fit_positions(self, module: nn.Module, weights: dict, selection: Selection) -> FittedPositions:
        pos_grid = None if selection.adopted else self.pos_grid
        try:
            fitted = fit_positions(weights, module, pos_grid, selection.weights)
        except ValueError as error:
            raise CheckpointError(f'{self.checkpoint}: {selection.prefix}{error}') from error
        for sentence in fitted.assumed:
            print_log(f'{self.checkpoint}: {selection.prefix}{sentence}', logger='current', level=logging.WARNING)
        return fitted

    def _fit_channels(self, module: nn.Module, weights: dict, selection: Selection) -> list[str]:
        """Adapt the first convolution in ``weights`` to other channels; return a phrase for it."""
        names = compare_weights(weights, module)
        name = names.input_convolution
        if name is None:
            return []
        saved, built = names.mismatched[name]
        if not self.adapt_in_channels:
            raise CheckpointError(
                f'{self.checkpoint}: {selection.prefix}{name} is made for images of {saved[1]} channels, and the '
                f'module takes {built[1]}. Give the module in_channels={saved[1]}, or adapt the weight with '
                'adapt_in_channels=True of addp_mm.Pretrained (docs/checkpoints.md).'
            )
        weights[name] = adapt_input_channels(weights[name], built[1])
        return [f'{name} {saved} -> {tuple(weights[name].shape)}']

    def _fit_patches(self, module: nn.Module, weights: dict, selection: Selection) -> list[str]:
        """Resize patch embeddings of another size in ``weights``; return a phrase for each."""
        resized = []
        for name, (saved, built) in compare_weights(weights, module).mismatched.items():
            if 'patch_embed' not in name or not len(saved) == len(built) == 4 or saved[:2] != built[:2]:
                continue
            if not self.resize_patch:
                raise CheckpointError(
                    f'{self.checkpoint}: {selection.prefix}{name} is made for patches of {saved[2]}x{saved[3]} pixels, '
                    f'and the module has patches of {built[2]}x{built[3]}. Give the module patch_size={saved[3]}, or '
                    'resize the embedding with resize_patch=True of addp_mm.Pretrained.'
                )
            weights[name] = resize_patch_projection(weights[name], (built[2], built[3]))
            resized.append(f'{name} {saved} -> {built}')
        return resized

    def _load(self, module: nn.Module, weights: Mapping[str, Tensor], selection: Selection) -> None:
        try:
            module.load_state_dict(weights, strict=False)
        except (RuntimeError, AssertionError) as error:  # mmpretrain's backbones assert the shape of positions
            names = compare_weights(weights, module)
            shapes = names.shapes(selection.prefix) or [str(error)]
            is_small_part = len(names.matching) + len(names.mismatched) < len(names.missing)
            raise CheckpointError(
                f'{self.checkpoint} does not fit {type(module).__name__}:\n  '
                + first_few(shapes, separator='\n  ')
                + '\nGive the module the sizes of the checkpoint (arch, embed_dims, patch_size, …), use another '
                f'checkpoint, or load a part of it (prefix).{_options_of(selection)}'
                f'{sentence_on_model(selection.weights, module) if is_small_part else ""}'
            ) from error

    def _report(
        self,
        module: nn.Module,
        selection: Selection,
        loaded: Mapping,
        fitted: FittedPositions,
        unexpected: Iterable[str],
        missing: list[str],
    ) -> None:
        part = f' ({selection.prefix}*)' if selection.prefix else ''
        if selection.layout:
            part += (
                f', converted from the layout of {selection.layout.name} ({len(selection.converted)} tensors in the '
                f'file, {len(selection.weights)} of them for this module)'
            )
        kept = f', kept its own {first_few(fitted.left_out)} (made for its size)' if fitted.left_out else ''
        sentences = [
            f'{type(module).__name__} from {self.checkpoint}{part}: loaded {len(loaded)}, '
            f'resized {first_few(fitted.resized)}, left out {first_few(unexpected)}'
            f'{" (not in the module)" if unexpected else ""}{kept}, missing {first_few(missing)}'
            f'{" (they stay as initialised)" if missing else ""}.'
        ]
        # Rarely intended: e.g. only the position embeddings of another package's ViT match.
        if len(loaded) < len(missing):
            sentences.append(
                'Less than half of the module was loaded: check that you want this.'
                f'{sentence_on_model(selection.weights, module)}'
            )
        random = _missing_blocks(loaded, missing)
        if random:
            sentences.append(f'The checkpoint has no {first_few(random)}, which stay random.{_options_of(selection)}')
        lacking = (name for name in missing if name.endswith(('.weight', '.bias')))
        incomplete = _of_loaded_blocks(loaded, [*unexpected, *lacking])
        if incomplete:
            sentences.append(
                f'Weights of loaded blocks were left out or are missing ({first_few(incomplete)}): the module computes '
                f'something else than the trained one.{_options_of(selection)}'
            )
        level = logging.WARNING if len(sentences) > 1 else logging.INFO
        print_log(' '.join(sentences), logger='current', level=level)


def _initialise_children(module: nn.Module) -> None:
    # mmengine initialises the children after all initialisers but its own Pretrained. They are
    # initialised here, so that mmengine does not overwrite the loaded weights. timm's modules have
    # init_weights too and are not BaseModules.
    child: Any
    for child in module.children():
        if hasattr(child, 'init_weights') and not getattr(child, 'is_init', False):
            child.init_weights()
            child.is_init = True


def _of_loaded_blocks(loaded: Mapping, others: Iterable[str]) -> list[str]:
    """The names in ``others`` of numbered blocks (``blocks.0.``) with loaded weights."""
    block = re.compile(r'(?:\w+\.)+?\d+\.')
    blocks = {match[0] for match in map(block.match, loaded) if match}
    return [name for name in others if (match := block.match(name)) and match[0] in blocks]


def _missing_blocks(loaded: Iterable[str], missing: Iterable[str]) -> list[str]:
    """Numbered blocks (``blocks.2.*``) of which nothing is loaded, beside others which are."""
    block = re.compile(r'((?:\w+\.)*?\w+\.)\d+\.')
    matches = [match for match in map(block.match, loaded) if match]
    blocks, stages = {match[0] for match in matches}, {match[1] for match in matches}
    lacking = dict.fromkeys(match[0] for match in map(block.match, missing) if match and match[1] in stages)
    return [f'{start}*' for start in lacking if start not in blocks]


def _name_of(module: nn.Module) -> str:
    """The class of a module, and which model of timm it is."""
    kind, model = type(module).__name__, getattr(module, 'model_name', '')
    return kind if not model or model.startswith(kind) else f'{kind} ({model})'


def _prefix_of(part: Mapping[str, Tensor], whole: Mapping[str, Tensor]) -> str:
    """The prefix under which most of the weights of a part are in another state dict, or ''."""
    names = [name.split('.') for name in whole]
    starts = dict.fromkeys('.'.join(name[:depth]) + '.' for depth in (1, 2) for name in names if len(name) > depth)
    for start in starts:
        if 2 * len(compare_weights(without_prefix(whole, start), part).matching) > len(part):
            return start
    return ''


def _options_of(selection: Selection) -> str:
    """A sentence with the module's arguments that follow from the weights; '' if none do."""
    options = ', '.join(f'{name}={value!r}' for name, value in selection.options().items())
    return f' The checkpoint is made for {options}.' if options else ''
