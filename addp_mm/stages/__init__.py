# Copyright (c) addp_mm contributors. Apache-2.0.
"""Trainings that follow each other in one work dir: commands, files and expected ends."""
