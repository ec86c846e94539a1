# Copyright (c) addp_mm contributors. Apache-2.0.
"""Write label maps of images with a classifier; the tool is ``addp label-maps``."""
