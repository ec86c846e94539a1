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
from addp_mm.checks.optimizer import check_optimizer
from addp_mm.checks.weights import check_initial_weights
from addp_mm.swap.colours import check_colours
from addp_mm.swap.trial import Trial, try_config

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
    """Yield the checks of a config: arguments, optimizer, colours, weights, and a trial.

    The trial finds channels and strides that do not fit, images that are not padded, a layer decay
    that cannot read the backbone, and weights of another layout in local files.

    Args:
        cfg: The whole config.
        trial: The trial.
    """
    yield from settings_checks(cfg, _NEEDED)
    yield Check('optimizer settings', partial(check_optimizer, cfg))
    yield Check('colours', partial(check_colours, cfg))
    yield Check('checkpoints', partial(check_initial_weights, cfg))
    yield Check('trial', trial)


def _patch_size(backbone: Any) -> int:
    size = backbone.get('patch_size')
    return size if isinstance(size, int) else 1
