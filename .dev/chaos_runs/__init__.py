# Copyright (c) addp_mm contributors. Apache-2.0.
"""Real trainings that are ended at random moments and resumed; see ``.dev/chaos.py``."""
