# Copyright (c) addp_mm contributors. Apache-2.0.
"""Configs of the three trainings, from the presets, the images and the user's changes."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mmengine.config import Config

from addp_mm.config.config_file import load_config
from addp_mm.config.option_values import read_value
from addp_mm.config.options import merge_options, split_options
from addp_mm.config.shipped import config_path
from addp_mm.errors import ConfigError, suggest
from addp_mm.own_data.images import Found
from addp_mm.stages.stage import WEIGHTS

STAGES = ('tokenizer', 'predictor', 'addp')
SIZES = ('nano', 'small', 'base', 'large')
OWN = 'own_data'
_SHORT = ('batch_size', 'max_iters', 'max_passes')
# shortest training, even with very few images
_FEWEST_ITERS = 100
_SMALLEST_FOR_SSIM = 16


@dataclass(frozen=True)
class Request:
    """The user's settings.

    Args:
        found: The images.
        image_size: Side of the training images, in pixels.
        size: One of :data:`SIZES`.
        work_dir: Absolute path.
        configs: Config with the user's changes, by stage. Defaults to {}: none.
        options: ``KEY=VALUE`` by stage. Defaults to {}: none.
        augmentation: As in :class:`~addp_mm.datasets.views.views.Views`. Defaults to 'crop'.
        crop_scale: As in ``Views``. Defaults to (0.2, 1.0).
        views: As in ``Views``. Defaults to 8.
        value_range: Values of black and white, for types without a range. Defaults to None.
        bfloat16: Whether to train in mixed precision. Defaults to False.
        num_workers: Processes that load images, for each training process. Defaults to 2.
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
        """Path of the exported weights of a stage."""
        return str(self.work_dir / stage / WEIGHTS)


def options_by_stage(options: Sequence[str]) -> dict[str, list[str]]:
    """``['addp.max_iters=9', …]`` as ``{'addp': ['own_data.max_iters=9'], …}``.

    Raises:
        ConfigError: An option does not begin with the name of a stage, or has no ``=``.
    """
    sorted_out: dict[str, list[str]] = {}
    for option in options:
        stage, dot, rest = option.partition('.')
        if stage not in STAGES or not dot:
            raise ConfigError(
                f'--cfg-options {option}: begin with the stage, such as tokenizer.max_iters=2000; stages are '
                f'{", ".join(STAGES)}{suggest(stage, STAGES)}'
            )
        short = rest.partition('=')[0] in _SHORT
        sorted_out.setdefault(stage, []).append(f'{OWN}.{rest}' if short else rest)
    for own in sorted_out.values():
        split_options(own)
    return sorted_out


def build_configs(request: Request) -> dict[str, Config]:
    """Build the config of each stage, before its batch size is known.

    Numbers of iterations may still be formulas over ``max_iters``, and ``own_data`` contains the
    number of images and of steps: :func:`~addp_mm.own_data.fitting.fit_config` replaces both. If
    you set ``train_dataloader.batch_size``, no batch size is searched.

    Raises:
        ConfigError: An option is unknown, or sizes do not fit together.
    """
    configs: dict[str, Config] = {}
    for stage in STAGES:
        cfg = Config.fromfile(config_path(f'_base_/own_data/{stage}_{request.size}.py'))
        cfg.pop('part', None)
        users = load_config(request.configs[stage]).to_dict() if stage in request.configs else {}
        given = request.options.get(stage, ())
        own = dict(split_options([option.removeprefix(f'{OWN}.') for option in given if option.startswith(f'{OWN}.')]))
        options = [option for option in given if not option.startswith(f'{OWN}.')]
        asked = {**users.pop(OWN, {}), **{key: read_value(text) for key, text in own.items()}}
        cfg[OWN] = _own_data(stage, cfg[OWN].to_dict(), asked, request.found.train_count)
        # Merged twice: sizes are inferred from the user's model, and the user's values have
        # priority.
        cfg.merge_from_dict(dict(model=users.get('model', {})))
        _merge(stage, cfg, [option for option in options if option.startswith('model.')])
        _FITTING[stage](cfg, request, configs)
        cfg.train_dataloader.num_workers = request.num_workers
        cfg.train_dataloader.persistent_workers = request.num_workers > 0
        cfg.default_hooks.logger.interval = max(1, min(50, cfg[OWN].max_iters // 200))
        if request.bfloat16:
            from addp_mm.engine.runner_cfg import set_amp

            set_amp(cfg, 'bfloat16')
        cfg.merge_from_dict(users)
        _merge(stage, cfg, options)
        if 'batch_size' in cfg.train_dataloader:
            _check_count(f'{stage}.train_dataloader.batch_size', cfg.train_dataloader.batch_size)
        if cfg.train_cfg.max_iters != 'max_iters':
            _check_count(f'{stage}.train_cfg.max_iters', cfg.train_cfg.max_iters, 3)
        configs[stage] = cfg
        if stage == 'tokenizer':
            _check_size(request, cfg)
    return configs


def _check_count(name: str, value: Any, least: int = 1) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise ConfigError(f'{name} must be a whole number of at least {least}, got {value!r}')


def check_configs(configs: Mapping[str, Config]) -> None:
    """Refuse misspelt arguments in all stages.

    Args:
        configs: Configs from :func:`build_configs`.

    Raises:
        ConfigError: A class does not have the argument.
    """
    from mmengine.registry import init_default_scope

    from addp_mm.checks.unknown_arguments import check_config

    for stage, cfg in configs.items():
        init_default_scope(cfg.get('default_scope') or 'mmengine')
        try:
            check_config(cfg, needed=('model', 'train_dataloader', 'train_cfg', 'optim_wrapper'))
        except ConfigError as error:
            raise ConfigError(f'{stage}: {error}') from error


def _merge(stage: str, cfg: Config, options: Sequence[str]) -> None:
    try:
        merge_options(cfg, options, also=_SHORT)
    except ConfigError as error:
        raise ConfigError(f'{stage}: {error}') from error


def _own_data(stage: str, preset: Mapping, asked: Mapping, count: int) -> dict:
    """The preset's ``own_data`` with the user's changes, shortened if there are few images."""
    for key, value in asked.items():
        if key not in _SHORT:
            raise ConfigError(f'{stage}: own_data has no {key!r}; it takes {", ".join(_SHORT)}')
        _check_count(f'{stage}.{key}', value, 3 if key == 'max_iters' else 1)
    own = {**preset, **asked}
    if 'max_iters' not in asked:
        enough = math.ceil(own['max_passes'] * count / own['batch_size'])
        own['max_iters'] = max(_FEWEST_ITERS, min(own['max_iters'], enough))
    return own


def preprocessor(channels: int) -> dict:
    """Config that scales the loaders' images (0 to 255) to [0, 1], three channels as RGB."""
    count = 3 if channels == 3 else 1
    return dict(type='SelfSupDataPreprocessor', mean=[0.0] * count, std=[255.0] * count, to_rgb=channels == 3)


def loading(request: Request) -> dict:
    """Config of the transform that reads an image."""
    if request.found.channels == 3 and request.found.plain and request.value_range is None:
        return dict(type='addp_mm.LoadImage')
    return dict(type='addp_mm.LoadMultiChannelImage', channels=request.found.channels, value_range=request.value_range)


def images(request: Request, split: str) -> dict:
    """Config of the dataset: the training images or the held-out ones.

    Args:
        request: The user's settings.
        split: 'train' or 'val'.
    """
    view = dict(type='addp_mm.MakeView', image_size=request.image_size, augmentation='none')
    if split == 'train':
        view.update(augmentation=request.augmentation)
        if request.augmentation == 'crop':
            view.update(crop_scale=tuple(request.crop_scale))
    # Changes of the images were checked before this config is used; then the list is fixed.
    return dict(
        request.found.dataset,
        split=split,
        val_every=request.found.val_every,
        changed='keep',
        pipeline=[loading(request), view, dict(type='PackInputs')],
    )


def held_out_loader(request: Request) -> dict:
    """Config of the loader of the held-out images."""
    return dict(
        batch_size=16,
        num_workers=min(1, request.num_workers),
        persistent_workers=request.num_workers > 0,
        sampler=dict(type='DefaultSampler', shuffle=False),
        collate_fn=dict(type='default_collate'),
        dataset=images(request, 'val'),
    )


def changeable_options(cfg: Mapping) -> list[str]:
    """``KEY=VALUE`` of the option that you may change later: the share of broken images."""
    return [
        f'{loader}.dataset.max_broken_share={share}'
        for loader in ('train_dataloader', 'val_dataloader')
        if (share := ((cfg.get(loader) or {}).get('dataset') or {}).get('max_broken_share')) is not None
    ]


def token_layout(cfg: Config) -> tuple[int, int]:
    """Side of a token in pixels, and number of codes.

    Args:
        cfg: Config of the tokenizer's stage.

    Raises:
        ConfigError: The tokenizer cannot be built.
    """
    import torch

    from addp_mm.registry import MODELS

    try:
        with torch.device('meta'):
            tokenizer = MODELS.build(cfg.model.tokenizer.to_dict())
        return tokenizer.stride, tokenizer.codebook_size
    except (TypeError, ValueError, AttributeError) as error:
        raise ConfigError(f'tokenizer: model.tokenizer cannot be built: {error}') from error


def _check_size(request: Request, cfg: Config) -> None:
    stride, _ = token_layout(cfg)
    if request.image_size % stride:
        down = request.image_size // stride * stride
        raise ConfigError(
            f'--img-size {request.image_size}: this tokenizer (--size {request.size}) needs a multiple of {stride} px, '
            f'such as {down or stride} or {down + stride}'
        )


def _fit_tokenizer(cfg: Config, request: Request, configs: Mapping) -> None:  # noqa: ARG001  # as the others
    cfg.model.tokenizer.in_channels = request.found.channels
    cfg.model.data_preprocessor = preprocessor(request.found.channels)
    cfg.train_dataloader.dataset = images(request, 'train')
    _, codes = token_layout(cfg)
    cfg.val_dataloader = held_out_loader(request)
    cfg.val_evaluator = [
        dict(type='addp_mm.PeakSignalNoiseRatio'),
        *([dict(type='addp_mm.StructuralSimilarity')] if request.image_size >= _SMALLEST_FOR_SSIM else []),
        dict(type='addp_mm.CodebookUsage', codebook_size=codes),
    ]
    cfg.val_cfg = dict()


def _tokens(request: Request, configs: Mapping) -> tuple[int, dict]:
    """Number of tokens of an image, and the token space."""
    stride, codes = token_layout(configs['tokenizer'])
    num_tokens = (request.image_size // stride) ** 2
    return num_tokens, dict(codebook_size=codes, num_class_slots=1, fake_class_slot=0)


def with_weights(component: Mapping, weights: str) -> dict:
    """A component with an ``init_cfg`` that loads its weights."""
    return dict(component, init_cfg=dict(type='addp_mm.Pretrained', checkpoint=weights, strict=True))


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
        tokenizer=with_weights(configs['tokenizer'].model.tokenizer.to_dict(), request.weights('tokenizer')),
    )


def _fit_addp(cfg: Config, request: Request, configs: Mapping) -> None:
    from addp_mm.models.backbones.options import arch_settings

    num_tokens, space = _tokens(request, configs)
    model, tokenizer = cfg.model, configs['tokenizer'].model.tokenizer.to_dict()
    model.tokenizer = with_weights(tokenizer, request.weights('tokenizer'))
    model.predictor = with_weights(configs['predictor'].model.predictor.to_dict(), request.weights('predictor'))
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
