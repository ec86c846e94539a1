# Copyright (c) addp_mm contributors. Apache-2.0.
"""Readers: from an image file to pixels."""
