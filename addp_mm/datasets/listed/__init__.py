# Copyright (c) addp_mm contributors. Apache-2.0.
"""Datasets of images in a list on disk: folders, LMDB databases, WebDataset shards."""
