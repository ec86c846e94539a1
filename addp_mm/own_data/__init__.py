# Copyright (c) addp_mm contributors. Apache-2.0.
"""Parts of tools/pretrain_from_folder.py."""
