# Copyright (c) addp_mm contributors. Apache-2.0.
"""Checks before training starts: of configs, data, weights and the launcher."""
