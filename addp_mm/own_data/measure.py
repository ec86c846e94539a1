# Copyright (c) addp_mm contributors. Apache-2.0.
"""Measure tokenizer and predictor on held-out images, with tools/test.py."""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Mapping

from mmengine.config import Config

from addp_mm.checkpoints.atomic_write import write_text
from addp_mm.config.config_file import ConfigError
from addp_mm.config.shipped import config_path
from addp_mm.evaluation import extractor_of
from addp_mm.own_data.stages import Request, held_out_loader, preprocessor, with_weights
from addp_mm.stages.commands import Commands, tool
from addp_mm.stages.stage import Stage, read_json

TEST, METRICS = 'test.py', 'metrics.json'
MEASURED = ('tokenizer', 'predictor')
# in the order of the report: prefix of the key, name in the report, decimals
_NAMES = (
    ('reconstruction/psnr', 'PSNR, dB', 2),
    ('reconstruction/ssim', 'SSIM', 3),
    ('reconstruction/rfid', 'rFID', 3),
    ('reconstruction/lpips', 'LPIPS', 4),
    ('codebook/usage', 'codes in use, %', 1),
    ('codebook/perplexity', 'code perplexity', 1),
    ('predictor/accuracy', 'accuracy, masked share ', 4),
    ('predictor/cross_entropy', 'cross entropy in nats, masked share ', 3),
)


def extra_metrics(args: Namespace) -> list[dict]:
    """Configs of the tokenizer's metrics from the command line.

    Raises:
        ConfigError: The config of ``--fid-extractor`` has no ``extractor``.
    """
    extractors = [extractor_of(args.fid_extractor)] if args.fid_extractor else []
    if args.inception_weights:
        extractors.append(dict(type='addp_mm.InceptionFeatures', weights=args.inception_weights))
    found = [dict(type='addp_mm.ReconstructionFID', extractor=extractor) for extractor in extractors]
    if args.lpips_weights:
        found.append(dict(type='addp_mm.LearnedPerceptualSimilarity', net='alex', weights=args.lpips_weights))
    return found


def check_extra_metrics(metrics: list[dict], channels: int, image_size: int) -> None:
    """Try each metric on two images, to find errors before the training.

    Args:
        metrics: Configs from :func:`extra_metrics`.
        channels: Channels of the images.
        image_size: Side of the images, in pixels.

    Raises:
        UserError: Weights or a package are missing.
        ConfigError: A metric cannot use images with these channels or of this size.
    """
    import torch
    from mmengine.logging import MMLogger

    from addp_mm.registry import METRICS as REGISTRY

    if metrics:
        # mmengine would log how each weight of the extractor was initialised.
        MMLogger.get_instance('pretrain_from_folder', log_level='WARNING')
    images = torch.zeros(2, channels, image_size, image_size)
    for cfg in metrics:
        metric = REGISTRY.build(cfg)
        try:
            metric.process({}, [dict(image=image, reconstruction=image) for image in images])
        except (ValueError, RuntimeError) as error:
            raise ConfigError(
                f'{cfg["type"].removeprefix("addp_mm.")} cannot be measured on images of {channels} '
                f'channels and {image_size} px: {error}. Remove its option'
            ) from error


def test_config(name: str, configs: Mapping[str, Config], request: Request, extra: list[dict]) -> Config:
    """The config that tests the exported weights of a stage.

    Args:
        name: One of :data:`MEASURED`.
        configs: Configs from :func:`~addp_mm.own_data.stages.build_configs`.
        request: The user's settings.
        extra: Configs from :func:`extra_metrics`, for the tokenizer.
    """
    trained = configs['tokenizer']
    tokenizer = with_weights(trained.model.tokenizer.to_dict(), request.weights('tokenizer'))
    if name == 'tokenizer':
        model = dict(type='addp_mm.TokenizerPretrain', tokenizer=tokenizer)
        # the user's config may have a single evaluator
        own = trained.val_evaluator
        evaluator = [*(own if isinstance(own, list) else [own]), *extra]
    else:
        model = configs['predictor'].model.to_dict()
        model.update(tokenizer=tokenizer, predictor=with_weights(model['predictor'], request.weights('predictor')))
        evaluator = [dict(type='addp_mm.MaskedTokenAccuracy')]
    model['data_preprocessor'] = preprocessor(request.found.channels)
    cfg = Config.fromfile(config_path('_base_/default_runtime.py'))
    cfg.merge_from_dict(
        dict(
            default_scope=configs[name].get('default_scope', 'mmpretrain'),
            model=model,
            test_evaluator=evaluator,
            test_cfg=dict(),
            randomness=dict(seed=0),
            test_dataloader=held_out_loader(request),
        )
    )
    return cfg


def command_of(stage: Stage) -> list[str]:
    """The command that measures a stage."""
    return tool('test.py', stage.folder / TEST, '--work-dir', stage.folder / 'test', '--out', stage.folder / METRICS)


def measure(stage: Stage, cfg: Config, commands: Commands) -> None:
    """Write ``metrics.json`` of a finished stage, unless the same config has written it."""
    text = f'# Written by tools/pretrain_from_folder.py for weights {stage.fingerprint}\n{cfg.pretty_text}'
    config, metrics = stage.folder / TEST, stage.folder / METRICS
    if config.is_file() and config.read_text() == text and _metrics(stage):
        return
    metrics.unlink(missing_ok=True)
    write_text(config, text)
    commands(command_of(stage), stage.folder / 'test.log')


def measured(stage: Stage) -> list[tuple[str, str]]:
    """Names and values for the report; empty if nothing was measured."""
    found, rows = _metrics(stage), []
    for start, words, digits in _NAMES:
        for key, value in found.items():
            if key.startswith(start):
                rest = key.removeprefix(start).replace('@', '')
                what = f' in features of {rest[1:-1]}' if rest.startswith('[') and 'rfid' in key else rest
                rows.append((f'{words}{what}', f'{value:.{digits}f}'))
    return rows


def _metrics(stage: Stage) -> dict:
    """The metrics of a stage; empty if nothing was measured.

    Raises:
        StateError: The file is damaged.
    """
    path = stage.folder / METRICS
    if not path.is_file():
        return {}
    return read_json(path, 'Remove it: the same command measures the stage again')
