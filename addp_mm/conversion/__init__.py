# Copyright (c) addp_mm contributors. Apache-2.0.
"""Converting checkpoints of other projects, with a proof that the result computes the same."""
