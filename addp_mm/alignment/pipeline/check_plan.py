# Copyright (c) addp_mm contributors. Apache-2.0.
"""What is checked before an alignment begins."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from mmengine.config import Config
from mmengine.registry import DefaultScope

from addp_mm.alignment.datasets import ChosenTrajectories, PreferencePairs
from addp_mm.alignment.generator_tuning import GeneratorTuning
from addp_mm.alignment.likelihood_tuning import LikelihoodTuning
from addp_mm.alignment.pipeline.comparison import check_comparison
from addp_mm.alignment.pipeline.plan import LIKELIHOOD, Contents, Plan
from addp_mm.alignment.pipeline.sections import SECTION
from addp_mm.alignment.preference_tuning import PreferenceTuning
from addp_mm.alignment.rewards import build_reward
from addp_mm.checkpoints.fingerprint import module_fingerprint, weights_fingerprint
from addp_mm.checkpoints.init_weights import init_weights
from addp_mm.checks.unknown_arguments import check_config
from addp_mm.config.type_names import type_name
from addp_mm.errors import ConfigError, UserError
from addp_mm.generation.class_choice import choose_classes
from addp_mm.label_maps.config_classifier import class_names
from addp_mm.models.layers.lora_weights import is_adapter
from addp_mm.registry import DATASETS, MODELS


def check_plan(plan: Plan, device: torch.device) -> Contents:
    """Find errors before the work: in rewards, data of the comparison, generators of the trainings.

    Returns:
        Fingerprints of what the plan names by paths.

    Raises:
        UserError: Something is missing or wrong.
    """
    from addp_mm.apis import load_model

    if plan.holes is not None:
        plan.holes.check()
    reward = build_reward(plan.reward, 'alignment.reward', device).fingerprint()
    compared = check_comparison(plan.comparison, device)
    model = load_model(plan.base_config, plan.base_checkpoint)
    base = module_fingerprint(model)
    if plan.classes:
        try:
            choose_classes(plan.classes, model.num_classes, class_names(plan.base_config))
        except ConfigError as error:
            raise ConfigError(f'alignment.sampling.classes: {error}') from error
    trainings = {LIKELIHOOD: (plan.likelihood, LikelihoodTuning)}
    trainings.update({name: (cfg, GeneratorTuning) for name, cfg in plan.methods.items()})
    for name, (cfg, kind) in trainings.items():
        try:
            _check_training(cfg, kind, base, plan.base_checkpoint)
        except UserError as error:
            raise ConfigError(f'{name}: {error}') from error
    return Contents(base, reward, compared)


def precision_faults(plan: Plan) -> list[str]:
    """Trainings in another precision than the sampling, in words.

    The frozen generator has the precision of the sampling. If the trained one has another, both
    differ before the first iteration.
    """
    sampled = 'bfloat16' if '--amp' in plan.sampling else 'float32'
    trainings = {LIKELIHOOD: plan.likelihood, **plan.methods}
    trained = {name: _precision(cfg.optim_wrapper) for name, cfg in trainings.items()}
    other = {name: dtype for name, dtype in trained.items() if dtype != sampled}
    if not other:
        return []
    found = ', '.join(f'{name} in {dtype}' for name, dtype in other.items())
    return [
        f'the images are sampled in {sampled} ({SECTION}.sampling.amp), and trained are {found} (optim_wrapper): the '
        'trained and the frozen generator differ before the first iteration. Give both one precision'
    ]


def _precision(optim_wrapper: Mapping[str, Any]) -> str:
    if type_name(optim_wrapper.get('type')) != 'AmpOptimWrapper':
        return 'float32'
    return str(optim_wrapper.get('dtype') or 'float16')


def _check_training(cfg: Config, kind: type[GeneratorTuning], base: str, checkpoint: str) -> None:
    check_config(cfg, needed=('model', 'train_dataloader', 'train_cfg', 'optim_wrapper'))
    max_iters = cfg.train_cfg.get('max_iters')
    if not isinstance(max_iters, int) or max_iters < 1:
        raise ConfigError(f"train_cfg must be dict(type='IterBasedTrainLoop', max_iters=…), got {cfg.train_cfg}")
    with DefaultScope.overwrite_default_scope(cfg.get('default_scope') or 'mmpretrain'):
        tuning = MODELS.build(cfg.model)
    if not isinstance(tuning, kind):
        raise ConfigError(f'model.type is {cfg.model.type}, but {kind.__name__} is needed')
    pairs = isinstance(tuning, PreferenceTuning)
    dataset = PreferencePairs if pairs else ChosenTrajectories
    if DATASETS.get(cfg.train_dataloader.dataset.type) is not dataset:
        raise ConfigError(
            f'train_dataloader.dataset.type is {cfg.train_dataloader.dataset.type}, but {cfg.model.type} needs '
            f'addp_mm.{dataset.__name__}'
        )
    init_weights(tuning.generator)
    if _fingerprint(tuning.generator.state_dict()) != base:
        raise ConfigError(
            f'model.generator has other weights than alignment.base.checkpoint {checkpoint}, or is another model. Its '
            'init_cfg must load the same files as the config of alignment.base'
        )


def _fingerprint(state_dict: Mapping[str, Any]) -> str:
    return weights_fingerprint({name: weight for name, weight in state_dict.items() if not is_adapter(name)})
