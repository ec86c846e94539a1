# Copyright (c) addp_mm contributors. Apache-2.0.
"""Read, compare and write checkpoints."""
