# Copyright (c) addp_mm contributors. Apache-2.0.
"""Hooks of mmengine's Runner."""

from addp_mm.engine.hooks.adversarial_start_hook import AdversarialStartHook
from addp_mm.engine.hooks.broken_samples_hook import BrokenSamplesHook
from addp_mm.engine.hooks.checkpoint_hook import CheckpointHook
from addp_mm.engine.hooks.code_restart_hook import CodeRestartHook
from addp_mm.engine.hooks.drawn_images_hook import DrawnImagesHook
from addp_mm.engine.hooks.early_stopping_hook import EarlyStoppingHook
from addp_mm.engine.hooks.failures import TrainingCollapsedError
from addp_mm.engine.hooks.generation_metric_hook import GenerationMetricHook
from addp_mm.engine.hooks.generative_pretrain_hook import GenerativePretrainHook
from addp_mm.engine.hooks.pending_validation_hook import PendingValidationHook
from addp_mm.engine.hooks.preflight_hook import PreflightHook
from addp_mm.engine.hooks.random_state_hook import RandomStateHook, ResumeError
from addp_mm.engine.hooks.reconstruction_preview_hook import ReconstructionPreviewHook
from addp_mm.engine.hooks.resume_hook import ResumeHook
from addp_mm.engine.hooks.stop_hook import StopHook
from addp_mm.engine.hooks.training_guard_hook import TrainingGuardHook

__all__ = [
    'AdversarialStartHook',
    'BrokenSamplesHook',
    'CheckpointHook',
    'CodeRestartHook',
    'DrawnImagesHook',
    'EarlyStoppingHook',
    'GenerationMetricHook',
    'GenerativePretrainHook',
    'PendingValidationHook',
    'PreflightHook',
    'RandomStateHook',
    'ReconstructionPreviewHook',
    'ResumeError',
    'ResumeHook',
    'StopHook',
    'TrainingCollapsedError',
    'TrainingGuardHook',
]
