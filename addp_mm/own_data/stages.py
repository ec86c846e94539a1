# Copyright (c) addp_mm contributors. Apache-2.0.
"""The configs of the three trainings, from presets, the images and what the user changes."""

from __future__ import annotations

import copy
import inspect
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mmengine.config import Config

from addp_mm.config.config_file import ConfigError, check_options, load_config, parse_options, suggest
from addp_mm.config.shipped import config_path
from addp_mm.config.type_names import type_name
from addp_mm.own_data.images import Found
from addp_mm.own_data.schedule import scale_iterations

STAGES = ('tokenizer', 'predictor', 'addp')
SIZES = ('nano', 'small', 'base', 'large')
WEIGHTS = 'weights.safetensors'
OWN = 'own_data'
_SHORT = ('batch_size', 'max_iters', 'max_passes', 'stride')
# what presets compute with, and no Runner reads
_SCRATCH = ('max_iters', 'part')
_SMALLEST_FOR_SSIM = 16


@dataclass(frozen=True)
class Request:
    """What the user asks for.

    Args:
        found: The images.
        image_size: Side of the pictures that the models train on, in pixels.
        size: One of :data:`SIZES`.
        work_dir: Absolute path.
        configs: Config with the user's changes, by stage.
        options: ``KEY=VALUE`` by stage.
        augmentation, crop_scale, views: Of :class:`~addp_mm.datasets.views.views.Views`.
        value_range: For values whose type has no range.
        bfloat16: Whether to train in mixed precision.
        num_workers: Processes that load images, for each that trains.
    """

    found: Found
    image_size: int
    size: str
    work_dir: Path
    configs: Mapping[str, str] = field(default_factory=dict)
    options: Mapping[str, Sequence[str]] = field(default_factory=dict)
    augmentation: str = 'crop'
    crop_scale: tuple[float, float] = (0.2, 1.0)
    views: int = 8
    value_range: tuple[float, float] | None = None
    bfloat16: bool = False
    num_workers: int = 2

    def weights(self, stage: str) -> str:
        return str(self.work_dir / stage / WEIGHTS)


def options_by_stage(options: Sequence[str]) -> dict[str, list[str]]:
    """``['addp.max_iters=9', …]`` as ``{'addp': ['max_iters=9'], …}``.

    Raises:
        ConfigError: An option does not begin with the name of a stage.
    """
    sorted_out: dict[str, list[str]] = {}
    for option in options:
        stage, dot, rest = option.partition('.')
        if stage not in STAGES or not dot:
            raise ConfigError(
                f'--cfg-options {option}: begin with the stage, as tokenizer.max_iters=2000; stages are '
                f'{", ".join(STAGES)}{suggest(stage, STAGES)}'
            )
        short = rest.partition('=')[0] in _SHORT
        sorted_out.setdefault(stage, []).append(f'{OWN}.{rest}' if short else rest)
    return sorted_out


def build_configs(request: Request) -> dict[str, Config]:
    """Config of each stage before batches are fitted to the memory; what is still to be fitted is in ``own_data``.

    A config or option of the user's that sets ``train_dataloader.batch_size`` leaves nothing to be
    fitted.

    Raises:
        ConfigError: Options that name nothing, or sizes that do not fit one another.
    """
    configs: dict[str, Config] = {}
    for stage in STAGES:
        cfg = Config.fromfile(config_path(f'_base_/own_data/{stage}_{request.size}.py'))
        users = load_config(request.configs[stage]) if stage in request.configs else Config()
        options = list(request.options.get(stage, ()))
        own = _set_steps(stage, cfg, users, options, request.found.train_count)
        # twice: sizes follow from what the user changes in the model, and the user has the last
        # word
        _merge_model(cfg, users, options)
        _FITTING[stage](cfg, request, configs)
        cfg.train_dataloader.num_workers = request.num_workers
        cfg.train_dataloader.persistent_workers = request.num_workers > 0
        if request.bfloat16:
            from addp_mm.engine.runner_cfg import set_amp

            set_amp(cfg, 'bfloat16')
        for key in _SCRATCH:
            cfg.pop(key, None)
        _merge_all(cfg, users, options)
        if 'batch_size' in cfg.train_dataloader:
            _check_count(f'{stage}.train_dataloader.batch_size', cfg.train_dataloader.batch_size)
        else:
            cfg[OWN] = own
        _check_count(f'{stage}.train_cfg.max_iters', cfg.train_cfg.max_iters)
        configs[stage] = cfg
        if stage == 'tokenizer':
            _check_size(request, cfg, own)
    return configs


def _merge_model(cfg: Config, users: Config, options: Sequence[str]) -> None:
    if 'model' in users:
        cfg.merge_from_dict(dict(model=users.model.to_dict()))
    of_model = [option for option in options if option.startswith('model.')]
    if of_model:
        cfg.merge_from_dict(parse_options(of_model))


def _merge_all(cfg: Config, users: Config, options: Sequence[str]) -> None:
    cfg.merge_from_dict({key: value for key, value in users.to_dict().items() if key != OWN})
    rest = [option for option in options if not option.startswith(f'{OWN}.')]
    if rest:
        parsed = parse_options(rest)
        check_options(cfg, parsed)
        cfg.merge_from_dict(parsed)


def _check_count(name: str, value: Any) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise ConfigError(f'{name} must be a whole number of at least 1, got {value!r}')


def check_configs(configs: Mapping[str, Config]) -> None:
    """Find misspelt arguments in all stages.

    Args:
        configs: Of :func:`build_configs`.

    Raises:
        ConfigError: An argument that its class does not take.
    """
    from mmengine.registry import init_default_scope

    from addp_mm.checks.unknown_arguments import check_config

    for stage, cfg in configs.items():
        init_default_scope(cfg.get('default_scope') or 'mmengine')
        try:
            check_config(cfg, needed=('model', 'train_dataloader', 'train_cfg', 'optim_wrapper'))
        except ConfigError as error:
            raise ConfigError(f'{stage}: {error}') from error


def _set_steps(stage: str, cfg: Config, users: Config, options: Sequence[str], count: int) -> dict:
    """Scale the preset to the number of steps asked for, or to the number of images; returns what own_data says."""
    asked = parse_options([o.removeprefix(f'{OWN}.') for o in options if o.startswith(f'{OWN}.')] or ['_=0'])
    asked = {**dict(users.get(OWN) or {}), **{key: value for key, value in asked.items() if key != '_'}}
    unknown = set(asked) - set(_SHORT)
    if unknown:
        raise ConfigError(f'own_data has no {sorted(unknown)[0]!r}; it takes {", ".join(_SHORT)}')
    for key, value in asked.items():
        _check_count(f'{stage}.{key}', value)
    own = {**cfg.pop(OWN).to_dict(), **asked}
    if 'max_iters' not in asked:
        own['max_iters'] = max(100, min(own['max_iters'], math.ceil(own['max_passes'] * count / own['batch_size'])))
    # a copy, in which nothing is shared: presets name one part twice
    plain = copy.deepcopy(cfg.to_dict())
    scale_iterations(plain, own['max_iters'] / plain['train_cfg']['max_iters'])
    cfg._cfg_dict.update(Config(plain)._cfg_dict)
    return own


def preprocessor(channels: int) -> dict:
    """Images as the loaders give them, to [0, 1] and RGB."""
    count = 3 if channels == 3 else 1
    return dict(type='SelfSupDataPreprocessor', mean=[0.0] * count, std=[255.0] * count, to_rgb=channels == 3)


def loading(request: Request) -> dict:
    """The transform that reads an image."""
    if request.found.channels == 3 and request.found.plain and request.value_range is None:
        return dict(type='addp_mm.LoadImage')
    return dict(type='addp_mm.LoadMultiChannelImage', channels=request.found.channels, value_range=request.value_range)


def images(request: Request, split: str) -> dict:
    """Config of the training's or the held-out images."""
    view = dict(type='addp_mm.MakeView', image_size=request.image_size, augmentation='none')
    if split == 'train':
        view.update(augmentation=request.augmentation)
        if request.augmentation == 'crop':
            view.update(crop_scale=tuple(request.crop_scale))
    # whether the images have changed is found out before: later the list that was begun with counts
    return dict(
        request.found.dataset,
        split=split,
        val_every=request.found.val_every,
        changed='keep',
        pipeline=[loading(request), view, dict(type='PackInputs')],
    )


def given_anew(cfg: Mapping) -> list[str]:
    """``KEY=VALUE`` of what may change while a stage trains: how many images may be broken."""
    return [
        f'{loader}.dataset.max_broken_share={share}'
        for loader in ('train_dataloader', 'val_dataloader')
        if (share := ((cfg.get(loader) or {}).get('dataset') or {}).get('max_broken_share')) is not None
    ]


def stride_of(tokenizer: Mapping, own: Mapping | None = None) -> int:
    """Pixels that a token stands for, on a side."""
    if own and own.get('stride'):
        return own['stride']
    from addp_mm.models.tokenizers import VQTokenizer

    if type_name(tokenizer.get('type')) != 'VQTokenizer':
        raise ConfigError(
            f'{tokenizer.get("type")} does not say how many pixels a token stands for: give '
            'tokenizer.stride=… to --cfg-options'
        )
    default = {name: parameter.default for name, parameter in inspect.signature(VQTokenizer).parameters.items()}
    levels = len(tokenizer.get('channel_mults', default['channel_mults']))
    return tokenizer.get('stem_stride', default['stem_stride']) * 2 ** (levels - 1)


def _check_size(request: Request, cfg: Config, own: Mapping) -> None:
    stride = stride_of(cfg.model.tokenizer, own)
    if request.image_size % stride:
        down = request.image_size // stride * stride
        raise ConfigError(
            f'--image-size {request.image_size}: this tokenizer (--size {request.size}) takes multiples '
            f'of {stride} px, as {down or stride} or {down + stride}'
        )


def _fit_tokenizer(cfg: Config, request: Request, configs: Mapping) -> None:
    cfg.model.tokenizer.in_channels = request.found.channels
    cfg.model.data_preprocessor = preprocessor(request.found.channels)
    cfg.train_dataloader.dataset = images(request, 'train')
    codes = cfg.model.tokenizer.get('codebook_size', 1024)
    cfg.val_dataloader = dict(
        batch_size=16,
        num_workers=min(1, request.num_workers),
        persistent_workers=request.num_workers > 0,
        sampler=dict(type='DefaultSampler', shuffle=False),
        collate_fn=dict(type='default_collate'),
        dataset=images(request, 'val'),
    )
    cfg.val_evaluator = [
        dict(type='addp_mm.PeakSignalNoiseRatio'),
        *([dict(type='addp_mm.StructuralSimilarity')] if request.image_size >= _SMALLEST_FOR_SSIM else []),
        dict(type='addp_mm.CodebookUsage', codebook_size=codes),
    ]
    cfg.val_cfg = dict()


def _tokens(request: Request, configs: Mapping) -> tuple[int, dict]:
    """Number of tokens of an image, and the token space: they follow from the tokenizer."""
    tokenizer = configs['tokenizer'].model.tokenizer
    side = request.image_size // stride_of(tokenizer, configs['tokenizer'].get(OWN))
    return side**2, dict(codebook_size=tokenizer.get('codebook_size', 1024), num_class_slots=1, fake_class_slot=0)


def loaded(part: Mapping, weights: str) -> dict:
    """A part with an init_cfg that names its weights."""
    return dict(part, init_cfg=dict(type='addp_mm.Pretrained', checkpoint=weights, strict=True))


def _fit_predictor(cfg: Config, request: Request, configs: Mapping) -> None:
    num_tokens, space = _tokens(request, configs)
    cfg.model.predictor.update(num_tokens=num_tokens, token_space=space)
    views = dict(image_size=request.image_size, augmentation=request.augmentation, count=request.views)
    if request.augmentation == 'crop':
        views.update(crop_scale=tuple(request.crop_scale))
    cfg.train_dataloader.dataset = dict(
        type='addp_mm.TokenIds',
        data_root=str(request.work_dir / 'tokens'),
        views=views,
        tokenizer=loaded(configs['tokenizer'].model.tokenizer.to_dict(), request.weights('tokenizer')),
    )


def _fit_addp(cfg: Config, request: Request, configs: Mapping) -> None:
    from addp_mm.models.backbones.options import arch_settings

    num_tokens, space = _tokens(request, configs)
    model, tokenizer = cfg.model, configs['tokenizer'].model.tokenizer.to_dict()
    model.tokenizer = loaded(tokenizer, request.weights('tokenizer'))
    model.predictor = loaded(configs['predictor'].model.predictor.to_dict(), request.weights('predictor'))
    model.data_preprocessor = preprocessor(request.found.channels)
    if request.found.channels != 3:
        model.update(pixel_mean=request.found.mean, pixel_std=request.found.std)
    side = math.isqrt(num_tokens)
    model.backbone.update(
        img_size=request.image_size, patch_size=request.image_size // side, in_channels=request.found.channels
    )
    width = arch_settings(model.backbone.arch)['embed_dims']
    model.neck.update(num_tokens=num_tokens, in_dims=width, token_space=space)
    model.head.update(in_dims=model.neck.get('embed_dims') or width, token_space=space)
    cfg.train_dataloader.dataset = images(request, 'train')


_FITTING = dict(tokenizer=_fit_tokenizer, predictor=_fit_predictor, addp=_fit_addp)
