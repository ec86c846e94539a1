# Copyright (c) addp_mm contributors. Apache-2.0.
"""What a sampler decided for each image, step by step: kept in memory and in files, and replayed."""
