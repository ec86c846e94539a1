# Copyright (c) addp_mm contributors. Apache-2.0.
"""Data sets of images that are listed once: folders, LMDB databases, WebDataset shards."""
