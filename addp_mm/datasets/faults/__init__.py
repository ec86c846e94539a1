# Copyright (c) addp_mm contributors. Apache-2.0.
"""Data that fail during a run: broken samples, reads that hang, workers that die."""
