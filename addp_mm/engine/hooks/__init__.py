# Copyright (c) addp_mm contributors. Apache-2.0.
"""Hooks of mmengine's Runner."""

from addp_mm.engine.hooks.adversarial_start_hook import AdversarialStartHook
from addp_mm.engine.hooks.broken_samples_hook import BrokenSamplesHook
from addp_mm.engine.hooks.code_restart_hook import CodeRestartHook
from addp_mm.engine.hooks.drawn_images_hook import DrawnImagesHook
from addp_mm.engine.hooks.failures import LossGuard, TrainingCollapsedError
from addp_mm.engine.hooks.finite_loss_hook import FiniteLossHook
from addp_mm.engine.hooks.generation_metric_hook import GenerationMetricHook
from addp_mm.engine.hooks.generative_pretrain_hook import GenerativePretrainHook
from addp_mm.engine.hooks.preflight_hook import PreflightHook
from addp_mm.engine.hooks.random_state_hook import RandomStateHook, ResumeError
from addp_mm.engine.hooks.reconstruction_preview_hook import ReconstructionPreviewHook
from addp_mm.engine.hooks.resume_hook import ResumeHook

__all__ = [
    'AdversarialStartHook',
    'BrokenSamplesHook',
    'CodeRestartHook',
    'DrawnImagesHook',
    'FiniteLossHook',
    'GenerationMetricHook',
    'GenerativePretrainHook',
    'LossGuard',
    'PreflightHook',
    'RandomStateHook',
    'ReconstructionPreviewHook',
    'ResumeError',
    'ResumeHook',
    'TrainingCollapsedError',
]
