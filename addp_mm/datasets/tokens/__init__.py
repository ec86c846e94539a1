# Copyright (c) addp_mm contributors. Apache-2.0.
"""Stored token ids."""
