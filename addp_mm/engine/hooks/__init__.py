# Copyright (c) addp_mm contributors. Apache-2.0.
from addp_mm.engine.hooks.preflight_hook import PreflightHook

__all__ = ['PreflightHook']
