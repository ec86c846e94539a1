# Copyright (c) addp_mm contributors. Apache-2.0.
"""Samplers and augmentation that a resumed training repeats exactly."""
