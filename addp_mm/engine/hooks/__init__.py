# Copyright (c) addp_mm contributors. Apache-2.0.
from addp_mm.engine.hooks.adversarial_start_guard import AdversarialStartGuard
from addp_mm.engine.hooks.code_restart import CodeRestartHook
from addp_mm.engine.hooks.drawn_pictures import DrawnPictures
from addp_mm.engine.hooks.finite_loss_hook import FiniteLossHook
from addp_mm.engine.hooks.generative_pretrain_hook import GenerativePretrainHook
from addp_mm.engine.hooks.loss_guard import LossGuard, TrainingCollapsed
from addp_mm.engine.hooks.preflight_hook import PreflightHook
from addp_mm.engine.hooks.random_state_hook import RandomStateHook, ResumeError
from addp_mm.engine.hooks.reconstruction_preview_hook import ReconstructionPreviewHook

__all__ = [
    'AdversarialStartGuard',
    'CodeRestartHook',
    'DrawnPictures',
    'FiniteLossHook',
    'GenerativePretrainHook',
    'LossGuard',
    'PreflightHook',
    'RandomStateHook',
    'ReconstructionPreviewHook',
    'ResumeError',
    'TrainingCollapsed',
]
