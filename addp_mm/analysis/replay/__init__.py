# Copyright (c) addp_mm contributors. Apache-2.0.
"""Run a saved failed iteration again."""
