# Copyright (c) addp_mm contributors. Apache-2.0.
"""Convert checkpoints of other projects, and check that the results are the same."""
