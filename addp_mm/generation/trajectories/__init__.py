# Copyright (c) addp_mm contributors. Apache-2.0.
"""What a sampler decided for each image, step by step: in memory, in files, and replayed."""
