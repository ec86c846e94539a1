# Copyright (c) addp_mm contributors. Apache-2.0.
"""Three trainings in a row on a user's folder of images: tools/pretrain_from_folder.py."""
