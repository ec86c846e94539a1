# Copyright (c) addp_mm contributors. Apache-2.0.
"""Reading, comparing and writing checkpoints."""
