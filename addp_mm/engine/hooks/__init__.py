# Copyright (c) addp_mm contributors. Apache-2.0.
"""Hooks of mmengine's Runner."""

from addp_mm.engine.hooks.adversarial_start_hook import AdversarialStartHook
from addp_mm.engine.hooks.code_restart_hook import CodeRestartHook
from addp_mm.engine.hooks.drawn_images_hook import DrawnImagesHook
from addp_mm.engine.hooks.failures import TrainingCollapsedError
from addp_mm.engine.hooks.generation_metric_hook import GenerationMetricHook
from addp_mm.engine.hooks.generative_pretrain_hook import GenerativePretrainHook
from addp_mm.engine.hooks.preflight_hook import PreflightHook
from addp_mm.engine.hooks.random_state_hook import RandomStateHook, ResumeError
from addp_mm.engine.hooks.reconstruction_preview_hook import ReconstructionPreviewHook
from addp_mm.engine.hooks.resume_hook import ResumeHook
from addp_mm.engine.hooks.training_guard_hook import TrainingGuardHook

__all__ = [
    'AdversarialStartHook',
    'CodeRestartHook',
    'DrawnImagesHook',
    'GenerationMetricHook',
    'GenerativePretrainHook',
    'PreflightHook',
    'RandomStateHook',
    'ReconstructionPreviewHook',
    'ResumeError',
    'ResumeHook',
    'TrainingCollapsedError',
    'TrainingGuardHook',
]
