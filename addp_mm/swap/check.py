# Copyright (c) addp_mm contributors. Apache-2.0.
"""Checks of a config whose backbone was replaced by hand; each is one function."""

from __future__ import annotations

import math
from collections.abc import Iterator
from functools import partial
from typing import Any

from mmengine.config import Config

from addp_mm.analysis.batches import training_size
from addp_mm.checks.check_list import Check, settings_checks
from addp_mm.checks.class_numbers import check_class_numbers
from addp_mm.checks.optimizer import check_optimizer
from addp_mm.checks.weights import check_initial_weights
from addp_mm.config.type_names import type_name
from addp_mm.errors import ConfigError
from addp_mm.swap.colours import check_colours
from addp_mm.swap.optimizer_check import warn_about_optimizer
from addp_mm.swap.trial import Trial, try_config

_BACKBONES = ('ADDPViT', 'TimmBackbone', 'VOLO')  # they take no weights by this option
_NEEDED = ('model', 'optim_wrapper')


class TrialOfCheck:
    """The trial as a check; it keeps what the trial has shown.

    Attributes:
        trial: None until the trial has passed.
    """

    def __init__(self, cfg: Config) -> None:
        self.cfg = cfg
        self.trial: Trial | None = None

    def __call__(self) -> None:
        """Run the trial. A classifier gets images of its training size, others small ones."""
        patch = _patch_size(self.cfg.model.get('backbone') or {})
        if self.cfg.get('default_scope') in ('mmdet', 'mmseg'):
            self.trial = try_config(self.cfg, divisor=math.lcm(32, patch))
        else:
            self.trial = try_config(self.cfg, training_size(self.cfg), divisor=1)


def swap_checks(cfg: Config, trial: TrialOfCheck) -> Iterator[Check]:
    """Yield the checks of a config: arguments, classes, optimizer, colours, weights, and a trial.

    The trial finds channels and strides that do not fit, images that are not padded, a layer decay
    that cannot read the backbone, and weights of another layout in local files.

    Args:
        cfg: The whole config.
        trial: The trial.
    """
    yield from settings_checks(cfg, _NEEDED)
    yield Check('numbers of classes', partial(check_class_numbers, cfg))
    yield Check('optimizer settings', partial(check_optimizer, cfg))
    yield Check('optimizer of the backbone', partial(warn_about_optimizer, cfg))
    yield Check('colours', partial(check_colours, cfg))
    yield Check('checkpoints', partial(_check_weights, cfg))
    yield Check('trial', trial)


def _check_weights(cfg: Config) -> None:
    """Check that local weights exist, and that no weights of the original backbone are left over.

    mmsegmentation hands ``model.pretrained`` to the backbone, which the trial leaves out.
    """
    check_initial_weights(cfg)
    backbone, left_over = cfg.model.get('backbone') or {}, cfg.model.get('pretrained')
    own = type_name(backbone.get('type')) in _BACKBONES or backbone.get('pretrained') or backbone.get('init_cfg')
    if left_over and own:
        raise ConfigError(
            f'model.pretrained={left_over!r} would replace the weights of model.backbone: set model.pretrained=None'
        )


def _patch_size(backbone: Any) -> int:
    size = backbone.get('patch_size')
    return size if isinstance(size, int) else 1
