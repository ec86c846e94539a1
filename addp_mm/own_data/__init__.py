# Copyright (c) addp_mm contributors. Apache-2.0.
"""Three trainings in sequence on your own images: tools/pretrain_from_folder.py."""
