# Copyright (c) addp_mm contributors. Apache-2.0.
"""Read files of strangers: pickles, YAML and arrays as data, never as code."""
