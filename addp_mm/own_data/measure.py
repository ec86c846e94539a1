# Copyright (c) addp_mm contributors. Apache-2.0.
"""What tokenizer and predictor do to images that were held out, by tools/test.py on their exported weights."""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Mapping

from mmengine.config import Config

from addp_mm.config.config_file import ConfigError, load_config
from addp_mm.config.shipped import config_path
from addp_mm.own_data.commands import Commands, tool
from addp_mm.own_data.stages import Request, images, loaded, preprocessor
from addp_mm.own_data.state import Stage, read_json, write_atomically

TEST, METRICS = 'test.py', 'metrics.json'
MEASURED = ('tokenizer', 'predictor')
_BATCH = 16
# in the order of the page: start of the key, how the page calls it, and digits behind the point
_NAMES = (
    ('reconstruction/psnr', 'PSNR, dB', 2),
    ('reconstruction/ssim', 'SSIM', 3),
    ('reconstruction/rfid', 'rFID', 3),
    ('reconstruction/lpips', 'LPIPS', 4),
    ('codebook/usage', 'codes in use, %', 1),
    ('codebook/perplexity', 'perplexity of the codes', 1),
    ('predictor/accuracy', 'accuracy, masked share ', 4),
    ('predictor/cross_entropy', 'cross entropy in nats, masked share ', 3),
)


def extra_metrics(args: Namespace) -> list[dict]:
    """Configs of the metrics that the command line asks for besides those of every tokenizer.

    Raises:
        ConfigError: The config of the extractor defines none.
    """
    found = []
    if args.fid_extractor:
        cfg = load_config(args.fid_extractor)
        if cfg.get('extractor') is None:
            raise ConfigError(
                f"--fid-extractor {args.fid_extractor} defines no 'extractor'; see configs/_base_/evaluation"
            )
        found.append(dict(type='addp_mm.ReconstructionFID', extractor=cfg.extractor.to_dict()))
    if args.inception_weights:
        found.append(
            dict(
                type='addp_mm.ReconstructionFID',
                extractor=dict(type='addp_mm.InceptionFeatures', weights=args.inception_weights),
            )
        )
    if args.lpips_weights:
        found.append(dict(type='addp_mm.LearnedPerceptualSimilarity', net='alex', weights=args.lpips_weights))
    return found


def check_extra_metrics(metrics: list[dict], channels: int, image_size: int) -> None:
    """Build each and give it two pictures: what is missing or does not fit is told before hours of training.

    Raises:
        UserError: Weights or a package are missing.
        ConfigError: A metric does not take images of these channels or this size.
    """
    import torch
    from mmengine.logging import MMLogger

    from addp_mm.registry import METRICS as REGISTRY

    if metrics:
        # else mmengine lists how each weight of the extractor came about
        MMLogger.get_instance('pretrain_from_folder', log_level='WARNING')
    pictures = torch.zeros(2, channels, image_size, image_size)
    for cfg in metrics:
        metric = REGISTRY.build(cfg)
        try:
            metric.process({}, [dict(image=picture, reconstruction=picture) for picture in pictures])
        except (ValueError, RuntimeError) as error:
            raise ConfigError(
                f'{cfg["type"].removeprefix("addp_mm.")} cannot be measured on pictures of {channels} '
                f'channels and {image_size} px: {error}. Leave its option out'
            ) from error


def test_config(name: str, configs: Mapping[str, Config], request: Request, extra: list[dict]) -> Config:
    """The config to test a stage with: it names the exported weights itself, and holds no training.

    Args:
        name: One of :data:`MEASURED`.
        configs: Of :func:`~addp_mm.own_data.stages.build_configs`.
        request: What was asked for.
        extra: Of :func:`extra_metrics`; for the tokenizer.
    """
    trained = configs['tokenizer']
    tokenizer = loaded(trained.model.tokenizer.to_dict(), request.weights('tokenizer'))
    if name == 'tokenizer':
        model = dict(type='addp_mm.TokenizerPretrain', tokenizer=tokenizer)
        # a user's config may name a single one
        own = trained.val_evaluator
        evaluator = [*(own if isinstance(own, list) else [own]), *extra]
    else:
        model = configs['predictor'].model.to_dict()
        model.update(tokenizer=tokenizer, predictor=loaded(model['predictor'], request.weights('predictor')))
        evaluator = [dict(type='addp_mm.MaskedTokenAccuracy')]
    model['data_preprocessor'] = preprocessor(request.found.channels)
    workers = min(1, request.num_workers)
    cfg = Config.fromfile(config_path('_base_/default_runtime.py'))
    cfg.merge_from_dict(
        dict(
            default_scope=configs[name].get('default_scope', 'mmpretrain'),
            model=model,
            test_evaluator=evaluator,
            test_cfg=dict(),
            randomness=dict(seed=0),
            test_dataloader=dict(
                batch_size=_BATCH,
                num_workers=workers,
                persistent_workers=workers > 0,
                sampler=dict(type='DefaultSampler', shuffle=False),
                collate_fn=dict(type='default_collate'),
                dataset=images(request, 'val'),
            ),
        )
    )
    return cfg


def command_of(stage: Stage) -> list[str]:
    """The command that measures a stage."""
    return tool('test.py', stage.folder / TEST, '--work-dir', stage.folder / 'test', '--out', stage.folder / METRICS)


def measure(stage: Stage, cfg: Config, commands: Commands) -> None:
    """Write ``metrics.json`` of a stage that is done, unless it is there and was measured by the same config."""
    text = f'# Written by tools/pretrain_from_folder.py for weights {stage.fingerprint}\n{cfg.pretty_text}'
    config, metrics = stage.folder / TEST, stage.folder / METRICS
    if config.is_file() and config.read_text() == text and _metrics(stage):
        return
    metrics.unlink(missing_ok=True)
    write_atomically(config, text)
    commands(command_of(stage), stage.folder / 'test.log')


def measured(stage: Stage) -> list[tuple[str, str]]:
    """Names and values for the page, in words; empty where nothing was measured."""
    found, rows = _metrics(stage), []
    for start, words, digits in _NAMES:
        for key, value in found.items():
            if key.startswith(start):
                rest = key.removeprefix(start).replace('@', '')
                what = f' in features of {rest[1:-1]}' if rest.startswith('[') and 'rfid' in key else rest
                rows.append((f'{words}{what}', f'{value:.{digits}f}'))
    return rows


def _metrics(stage: Stage) -> dict:
    """What was measured of a stage; empty before that.

    Raises:
        StateError: The file is damaged.
    """
    path = stage.folder / METRICS
    if not path.is_file():
        return {}
    return read_json(path, f'Remove it to have it measured anew; --restart-from {stage.name} also trains anew')
