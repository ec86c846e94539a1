# Copyright (c) addp_mm contributors. Apache-2.0.
"""Reduce a config so that one step takes seconds on a CPU; its parts stay the same."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

from mmengine.config import Config

from addp_mm.analysis.batches import dicts_of, pad_to
from addp_mm.config.type_names import type_name

MOST_PROPOSALS = 16
MOST_QUERIES = 100
LEAST_SIDE = 96  # maps of strides 32, 64 and 128 have different sizes
_PADS = ('Pad', 'RandomCenterCropPad', 'FixedSizeCrop')


def trial_size_of(cfg: Config, img_size: tuple[int, int], divisor: int) -> tuple[int, int]:
    """Height and width of the images of a trial.

    Args:
        cfg: The config.
        img_size: The smallest size that the backbone can process.
        divisor: Both sides are multiples of it.
    """
    least = 1
    if cfg.get('default_scope') == 'mmdet':
        least = LEAST_SIDE
        if cfg.model.get('as_two_stage'):
            # queries begin at the best positions of maps with strides 8 to 64; DDQ takes more
            queries = MOST_QUERIES * (1 + (cfg.model.get('dqs_cfg') is not None))
            least = max(least, math.ceil(math.sqrt(queries * 64 / (1 + 1 / 4 + 1 / 16 + 1 / 64))))
    height, width = (math.ceil(max(side, least) / divisor) * divisor for side in img_size)
    return height, width


def odd_size(cfg: Config, img_size: tuple[int, int]) -> tuple[int, int]:
    """Size of images in a prediction: odd if the config takes images of any size."""
    steps = ((cfg.get('test_dataloader') or {}).get('dataset') or {}).get('pipeline') or ()
    kinds = [type_name(step.get('type')) for step in dicts_of(steps)]
    kept = any(step.get('keep_ratio') for step in dicts_of(steps))
    if cfg.get('default_scope') in ('mmdet', 'mmseg') and kept and not any(kind in _PADS for kind in kinds):
        return img_size[0] - 7, img_size[1] - 3
    return img_size


def reduce_config(cfg: Config, img_size: tuple[int, int]) -> Iterator[str]:
    """Take out what makes images larger, and limit proposals and queries; yield notes.

    Args:
        cfg: The config, changed in place.
        img_size: Height and width of the images.
    """
    for owner in (cfg, cfg.model):
        preprocessor: Any = owner.get('data_preprocessor') or {}
        if cfg.get('default_scope') == 'mmdet' and preprocessor.get('batch_augments'):
            preprocessor.batch_augments = None
            yield 'batch_augments of the data preprocessor are left out'
    pad_to(cfg, img_size)
    if cfg.model.get('as_two_stage') and cfg.model.get('num_queries', 300) > MOST_QUERIES:
        cfg.model.num_queries = MOST_QUERIES
        yield f'the model has {MOST_QUERIES} queries'
    if _limit_proposals(cfg.model):
        yield f'at most {MOST_PROPOSALS} proposals of each image are used'


def _limit_proposals(model: Any) -> bool:
    """Limit region proposals and samples of two-stage detectors; return whether any were more."""
    found = False
    for node in dicts_of(model):
        for part, option in dict(sampler='num', rpn='max_per_img', rpn_proposal='max_per_img').items():
            settings = node.get(part)
            if isinstance(settings, dict) and (settings.get(option) or 0) > MOST_PROPOSALS:
                settings[option], found = MOST_PROPOSALS, True
    return found
